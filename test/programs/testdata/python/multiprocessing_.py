import multiprocessing as mp, os, time
def sq(x): return x * x
def worker(q, r):
    for v in iter(q.get, None): r.put(v * 2)
def inc(v, n):
    for _ in range(n):
        with v.get_lock(): v.value += 1
def shm(name):
    from multiprocessing import shared_memory
    s = shared_memory.SharedMemory(name); s.buf[0] = 77; s.close()
def main(method):
    ctx = mp.get_context(method)
    with ctx.Pool(4) as p:
        print(method, sum(p.map(sq, range(500), chunksize=20)), p.apply_async(sq, (9,)).get(30))
    q, r = ctx.Queue(), ctx.Queue()
    ps = [ctx.Process(target=worker, args=(q, r)) for _ in range(3)]
    [p.start() for p in ps]
    for i in range(100): q.put(i)
    for _ in ps: q.put(None)
    print(sum(r.get(timeout=30) for _ in range(100)))
    [p.join() for p in ps]; print([p.exitcode for p in ps])
    v = ctx.Value("i", 0)
    ps = [ctx.Process(target=inc, args=(v, 200)) for _ in range(4)]; [p.start() for p in ps]; [p.join() for p in ps]; print(v.value)
    a, b = ctx.Pipe(); p = ctx.Process(target=lambda c: None) if False else ctx.Process(target=b.send, args=({"k": [1, 2]},)); p.start(); print(a.recv()); p.join()
    from multiprocessing import shared_memory
    s = shared_memory.SharedMemory(create=True, size=4096)
    p = ctx.Process(target=shm, args=(s.name,)); p.start(); p.join(); print(s.buf[0]); s.close(); s.unlink()
    p = ctx.Process(target=time.sleep, args=(100,)); p.start(); p.terminate(); p.join(); print(p.exitcode)
if __name__ == "__main__":
    main("fork"); main("spawn")
