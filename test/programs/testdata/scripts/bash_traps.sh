trap 'echo exiting $?' EXIT
trap 'echo usr1' USR1
kill -USR1 $$
trap 'echo term; exit 5' TERM
(sleep 0.1; kill -TERM $$) &
while :; do sleep 0.02; done
