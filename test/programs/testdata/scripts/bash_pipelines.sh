set -o pipefail
seq 1 1000 | grep 7 | sort -rn | head -5
echo "status ${PIPESTATUS[*]}"
yes | head -100000 | wc -l
false | true; echo "pipefail $?"
cat <<X | tr a-z A-Z
here document $((6*7))
X
cat <<'X'
no $expansion here
X
cat <<<"here string"
diff <(printf 'a\nb\n') <(printf 'a\nc\n'); echo "diff $?"
tee >(wc -c >&2) </dev/null 2>/dev/null
exec 5<>fifo_file; echo through >&5; exec 5<&-; cat fifo_file
mkfifo p; (echo via fifo >p &); cat p
x=$(echo nested $(echo deeper $(echo deepest))); echo "$x"
for i in 1 2 3; do echo $i; done | while read a; do echo "read $a"; done
{ echo out; echo err >&2; } 2>&1 | sort
(exit 3); echo $?
( ulimit -n 100; ulimit -n )
printf '%s\n' {a..e} | paste -sd,
mapfile -t arr < <(seq 5); echo "${#arr[@]} ${arr[4]}"
coproc CP { read l; echo "coproc got $l"; }
echo ping >&"${CP[1]}"; read -r r <&"${CP[0]}"; echo "$r"
wait
echo done >/dev/stdout; echo err >/dev/stderr
