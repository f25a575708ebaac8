import os, subprocess, sys, signal
print(subprocess.check_output(["echo", "hi"]).decode().strip())
p = subprocess.run("cat; exit 3", shell=True, input=b"data" * 50000, capture_output=True)
print(len(p.stdout), p.returncode)
p = subprocess.Popen(["sleep", "100"]); p.terminate(); print(p.wait())
try:
    subprocess.run(["sleep", "100"], timeout=0.1)
except subprocess.TimeoutExpired:
    print("timeout")
try:
    subprocess.run(["/nonexistent"])
except FileNotFoundError as e:
    print("ENOENT", e.errno)
a = subprocess.Popen(["seq", "100000"], stdout=subprocess.PIPE)
b = subprocess.Popen(["tail", "-1"], stdin=a.stdout, stdout=subprocess.PIPE); a.stdout.close()
print(b.communicate()[0].decode().strip())
procs = [subprocess.Popen([sys.executable, "-S", "-c", f"import sys; sys.exit({i})"]) for i in range(6)]
print([p.wait() for p in procs])
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(w, b"from fork"); os._exit(9)
os.close(w); print(os.read(r, 100), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if hasattr(os, "waitstatus_to_exitcode") else 9)
print(subprocess.run(["bash", "-c", "kill -TERM $$"]).returncode == -signal.SIGTERM)
env = dict(os.environ, FOO="bar"); print(subprocess.check_output(["printenv", "FOO"], env=env, cwd="/").decode().strip())
print(os.popen("pwd").read().strip() == os.getcwd())
