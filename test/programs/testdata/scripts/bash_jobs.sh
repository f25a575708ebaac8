sleep 0.1 & a=$!
(exit 7) & b=$!
wait $b; echo "b $?"
wait $a; echo "a $?"
sleep 100 & c=$!
kill $c; wait $c; echo "c $?"
sleep 100 & kill -9 $!; wait $! 2>/dev/null; echo "killed $?"
set -m
sleep 100 &
kill -STOP %1; sleep 0.1; jobs | sed 's/ \+/ /g'
bg %1 >/dev/null; jobs | sed 's/ \+/ /g'
kill %1; wait %1 2>/dev/null; echo "job $?"
for i in 1 2 3 4 5; do (sleep 0.0$i; exit $i) & done
wait; echo all
(trap 'echo int; exit 9' INT; kill -INT $BASHPID; sleep 1); echo $?
bash -c 'kill -SEGV $$'; echo "segv $?"
timeout 0.1 sleep 10; echo "timeout $?"
timeout -s KILL 0.1 sleep 10; echo "timeout kill $?"
nohup true >/dev/null 2>&1; echo "nohup $?"
time -p true 2>/dev/null; echo "$?"
