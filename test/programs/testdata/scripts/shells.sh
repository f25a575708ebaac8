sh -c 'echo dash $0' x
busybox sh -c 'echo busybox; ls / | grep -c usr' 2>/dev/null
bash -c 'exit 42'; echo $?
bash -c 'kill -9 $$'; echo $?
bash -c 'nosuchcommand' 2>/dev/null; echo $?
bash -c '/etc/passwd' 2>/dev/null; echo $?
echo 'echo script $1; exit 4' > s; bash s arg; echo $?
printf '#!/bin/sh\necho shebang $1 $0\n' > t; chmod +x t; ./t a
env -S 'sh -c "echo env -S"'
ps -o pid=,comm= -p $$ | awk '{print $2}'
ps aux | awk 'NR==1{print NF>=11}'; top -bn1 | head -1 | cut -c1-3; free >/dev/null && echo free; uptime >/dev/null && echo uptime; pgrep -c bash | sed 's/[0-9]*/n/'
cat /proc/$$/comm; ls /proc/self/task | wc -l; id -un; hostname >/dev/null && echo host; getent passwd root | cut -d: -f1; getconf PAGESIZE; locale -a | grep -c '^C$'; mount | grep -c ' / '; tty; stty -a 2>&1 | head -1
