cat > main.c <<'X'
#include <stdio.h>
#include <stdlib.h>
#include "lib.h"
int main(int argc, char **argv) { printf("%d %s\n", square(argc + 6), VERSION); return square(2); }
X
cat > lib.h <<'X'
int square(int);
X
cat > lib.c <<'X'
#include "lib.h"
int square(int x) { return x * x; }
X
gcc -O2 -Wall -DVERSION='"v1"' -c main.c && gcc -O2 -c lib.c && gcc -o prog main.o lib.o && ./prog; echo "exit $?"
gcc -shared -fPIC -o libsq.so lib.c && gcc -DVERSION='"so"' -o prog2 main.c -L. -lsq -Wl,-rpath,'$ORIGIN' && ./prog2 a; echo "exit $?"
gcc -static -DVERSION='"static"' -o prog3 main.c lib.c && ./prog3; echo "exit $?"
ar rcs libsq.a lib.o && gcc -flto -O2 -DVERSION='"lto"' -o prog4 main.c libsq.a && ./prog4 >/dev/null; echo "exit $?"
echo 'int main(void) { return undefined_thing(); }' > bad.c; gcc -Werror -o bad bad.c 2>/dev/null; echo "bad $?"
objdump -d prog | grep -c 'square' | sed 's/[0-9][0-9]*/n/'; nm prog | grep -c ' T main'; strip prog && ./prog >/dev/null; echo "$?"
echo '#include <iostream>
#include <thread>
int main() { int n = 0; std::thread t([&] { n = 5; }); t.join(); try { throw 3; } catch (int i) { std::cout << n + i << std::endl; } }' > x.cc
g++ -O1 -pthread -o x x.cc && ./x
