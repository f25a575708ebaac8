seq 10000 | awk '{s+=$1; a[$1%7]++} END {print s; for (i=0;i<7;i++) print i, a[i]}'
awk 'BEGIN { "echo sub" | getline x; print x; print "to sort 2\nto sort 1" | "sort"; close("sort"); printf "%05.2f|%-5s|%x\n", 3.14159, "ab", 255; exit 3 }'; echo $?
awk -F: '$3==0 {print $1}' /etc/passwd
printf 'one\ntwo\nthree\n' | sed -n '2{s/t/T/;p};$='; echo abc | sed -E 's/(a)(b)/\2\1/'; seq 5 | sed '2,3d;$a end'; printf 'x\n' > f; sed -i s/x/y/ f; cat f; sed 'N;s/\n/+/' <<<$'1\n2'
perl -e 'my %h; $h{$_ % 10}++ for 1..1000; print join(",", map {"$_=$h{$_}"} sort keys %h), "\n"; open my $p, "-|", "echo from child" or die; print <$p>; close $p; my $pid = fork; if (!$pid) { exit 4 } waitpid $pid, 0; print $? >> 8, "\n"; $SIG{ALRM} = sub { print "alarm\n" }; alarm 1; select undef, undef, undef, 3; printf "%.3f\n", atan2(1,1)*4; local $| = 1; print sprintf("%s", join "", reverse split //, "olleh"), "\n"; exit 5'; echo $?
perl -MSocket -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen=>1, LocalAddr=>"127.0.0.1"); $p = $s->sockport; if (!fork) { $c = IO::Socket::INET->new("127.0.0.1:$p"); print $c "hi\n"; exit } $c = $s->accept; print scalar <$c>; wait'
perl -MPOSIX -e 'print POSIX::strftime("%F", gmtime 0), "\n"; pipe R, W; if (!fork) { close R; print W "x" x 100000; exit } close W; local $/; print length(<R>), "\n"; wait'
grep -c '' /etc/passwd | sed 's/[0-9]*/n/'; grep -rl 'GNU General Public License' /usr/share/common-licenses | sort; grep -rc root /etc/passwd; grep -q nothing /etc/passwd; echo $?; grep x /nonexistent 2>/dev/null; echo $?
echo 'scale=20; 4*a(1)' | bc -l 2>/dev/null || echo nobc; expr index hello l; printf '%d %o %X %e %q\n' 42 42 255 3.5 'a b'
diff -u <(seq 5) <(seq 2 6) | tail -n +3; cmp <(echo a) <(echo b); patch --version >/dev/null 2>&1 && { printf 'a\nb\n' > o; printf 'a\nc\n' > n; diff -u o n > p; patch -s o p; cat o; }
file /bin/ls | cut -c1-30; strings -n 8 /bin/true | head -1 | wc -l; sqlite3 :memory: 'create table t(a,b); insert into t values(1,2),(3,4); select sum(a*b) from t;'
