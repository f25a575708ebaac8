# A real walk over many files: names, sizes and contents must be the host's.
grep -rsl 'Copyright' /usr/share/doc /usr/share/perl /usr/share/common-licenses | sort | md5sum
grep -rsc 'the' /usr/share/common-licenses | sort | md5sum
find /usr/share -type f -printf '%p %s %m\n' | sort | md5sum
