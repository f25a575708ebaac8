mkdir -p d/e; cd d
seq 100 > s; wc s; md5sum s; sha256sum s; cksum s; sum s
split -l 30 s part; ls; cat part* | cmp - s && echo same
cp -a s e/copy; mv e/copy e/moved; ln s hard; ln -s s soft; stat -c '%s %h %F %a' s soft hard; stat -c '%h %F %a' e
cp -r e e2; rm -r e2; touch -d '2001-02-03 04:05:06 UTC' t; TZ=UTC stat -c %y t
chmod 640 t; stat -c %A t; truncate -s 1M big; stat -c '%s' big; dd if=/dev/zero of=z bs=4k count=256 2>/dev/null; du -k z
head -c 100000 /dev/urandom > r; base64 r | base64 -d | cmp - r && echo roundtrip
sort -R s | sort -n | cmp - s && echo sorted
comm -12 <(sort s) <(seq 50 60 | sort) | wc -l
tac s | head -2; rev <<<abc; cut -d, -f2 <<<a,b,c; tr -d aeiou <<<education; uniq -c <(printf 'a\na\nb\n')
join <(printf '1 a\n2 b\n') <(printf '1 x\n2 y\n'); paste <(seq 2) <(seq 3 4); nl <(echo x); fold -w3 <<<abcdef; expand <<<$'a\tb'; od -c <<<hi; factor 1234567; expr 6 \* 7
basename /a/b.c .c; dirname /a/b; realpath --relative-to=. e; readlink soft; test -e soft && echo e; [ s -nt t ] && echo newer
date -u -d @86400 +%F; env -i A=1 env; printenv HOME >/dev/null && echo home; id -u; whoami; groups | wc -w | sed 's/[0-9]*/n/'; uname -s; nproc | sed 's/[0-9]*/n/'; arch
install -m 711 s inst; stat -c %a inst; mktemp -u XXXX | wc -c; shred -u inst; ls inst 2>&1; seq -s+ 5; sleep 0.01; tty; pwd | sed 's,.*/,,'; df . >/dev/null && echo df; sync; ls -la /proc/self/fd >/dev/null && echo fd; stat -f / >/dev/null && echo statf
find . -type f | sort; find . -name 'part*' -delete; find . -newer t -type d | sort; find . -size +100k -printf '%f %s\n' | sort; find . -type l -ls | wc -l; find / -maxdepth 1 -name usr; ls -R | wc -l
xargs -n 10 echo <s | wc -l; seq 20 | xargs -P 4 -I{} sh -c 'exit 0' && echo parallel; tee a b <s >/dev/null; cmp a b; tail -n 3 s; tail -c 5 s; (sleep 0.2; echo last >>s) & timeout 2 tail -s 0.1 -f -n 1 s | head -2; wait
