mkdir -p src/a/b; for i in $(seq 200); do echo "file $i $(seq $i | tr '\n' ' ')" > src/a/f$i; done
ln -s f1 src/a/link; ln src/a/f2 src/a/hard; mkfifo src/a/fifo; chmod 600 src/a/f3; touch -d '2010-01-01 UTC' src/a/f4; head -c 3000000 /dev/urandom > src/random; seq 200000 > src/text
for z in '' z J j; do
  tar c${z}f t.tar$z src && mkdir out && tar x${z}f t.tar$z -C out && diff -r --no-dereference src out/src && echo "tar $z same"
  tar t${z}f t.tar$z | sort | md5sum; rm -r out
done
stat -c '%a %Y' src/a/f3 src/a/f4 | tail -1
tar cf - src | (mkdir p; cd p; tar xf -) ; ls p/src/a | wc -l; [ src/a/hard -ef src/a/f2 ] && echo linked
gzip -k src/text; gunzip -c src/text.gz | cmp - src/text && echo gzip; zcat src/text.gz | tail -1; gzip -t src/text.gz && echo ok
xz -k -T2 src/text; xz -dc src/text.xz | cmp - src/text && echo xz; xz -l src/text.xz >/dev/null && echo listed
bzip2 -k src/text; bzcat src/text.bz2 | cmp - src/text && echo bzip2
gzip -9 <src/random | gzip -d | cmp - src/random && echo random
printf garbage | gunzip 2>/dev/null; echo "bad gzip $?"
find src -name 'f1*' | cpio -o 2>/dev/null >/dev/null; tar cf - --sparse src/text | wc -c
