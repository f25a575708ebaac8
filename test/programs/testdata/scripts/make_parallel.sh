n=24
{ printf 'all: prog\n\t@./prog\nOBJS ='; for i in $(seq $n); do printf ' f%d.o' $i; done; printf '\nprog: main.o $(OBJS)\n\t@gcc -o $@ $^\n%%.o: %%.c\n\t@gcc -c -o $@ $<\nclean:\n\t@rm -f *.o prog\n'; } > Makefile
for i in $(seq $n); do echo "int f$i(void) { return $i; }" > f$i.c; done
{ echo '#include <stdio.h>'; for i in $(seq $n); do echo "int f$i(void);"; done; echo 'int main(void) { int s = 0;'; for i in $(seq $n); do echo "s += f$i();"; done; echo 'printf("%d\n", s); return 0; }'; } > main.c
make -j4; echo "make $?"; make -j4 | tail -1; touch f3.c; make -j4 -n prog | wc -l; make clean; ls *.o 2>/dev/null | wc -l
printf 'a:\n\t@false\n' > bad.mk; make -f bad.mk 2>/dev/null; echo "bad $?"
