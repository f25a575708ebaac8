import threading, queue, time, os, signal, concurrent.futures as cf, asyncio
q = queue.Queue(10); total = 0; lock = threading.Lock()
def work():
    global total
    while True:
        v = q.get()
        if v is None: return
        with lock: total += v
ts = [threading.Thread(target=work) for _ in range(20)]
[t.start() for t in ts]
for i in range(5000): q.put(i)
for _ in ts: q.put(None)
[t.join() for t in ts]
print(total)
ev = threading.Event(); threading.Timer(0.05, ev.set).start(); print(ev.wait(5), ev.wait(0))
c = threading.Condition(); out = []
def cons():
    with c:
        while not out: c.wait()
t = threading.Thread(target=cons); t.start(); time.sleep(0.02)
with c: out.append(1); c.notify_all()
t.join(); print("cond")
with cf.ThreadPoolExecutor(8) as ex: print(sum(ex.map(lambda x: x * x, range(1000))))
async def go(n):
    await asyncio.sleep(0.01 * (n % 3)); return n
async def main():
    print(sum(await asyncio.gather(*[go(i) for i in range(100)])))
    p = await asyncio.create_subprocess_exec("echo", "async", stdout=asyncio.subprocess.PIPE)
    print((await p.communicate())[0])
asyncio.get_event_loop_policy().new_event_loop().run_until_complete(main()) if False else asyncio.run(main())
got = []
signal.signal(signal.SIGUSR1, lambda s, f: got.append(s)); os.kill(os.getpid(), signal.SIGUSR1); time.sleep(0.01); print(got == [signal.SIGUSR1])
b = threading.Barrier(5); ts = [threading.Thread(target=b.wait) for _ in range(5)]; [t.start() for t in ts]; [t.join() for t in ts]; print("barrier")
print(threading.active_count())
