import sqlite3, os, threading, subprocess, sys
for mode in ("delete", "wal", "memory"):
    f = f"db-{mode}"
    c = sqlite3.connect(f, timeout=30); print(c.execute(f"pragma journal_mode={mode}").fetchone())
    c.execute("create table t(id integer primary key, v text)")
    with c: c.executemany("insert into t(v) values(?)", [(f"row {i}",) for i in range(3000)])
    c.execute("create index i on t(v)")
    with c: c.execute("update t set v = v || '!' where id % 2 = 0")
    try:
        with c: c.execute("delete from t"); raise RuntimeError
    except RuntimeError: pass
    print(c.execute("select count(*), sum(length(v)) from t").fetchone(), c.execute("pragma integrity_check").fetchone())
    code = f"import sqlite3; c = sqlite3.connect('{f}', timeout=60); c.isolation_level=None\nfor i in range(20): c.execute('insert into t(v) values(\"x\")')"
    ps = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    print([p.wait() for p in ps], c.execute("select count(*) from t").fetchone())
    c.execute("vacuum"); c.close(); print(os.path.exists(f), os.path.exists(f + "-wal"))
    o = sqlite3.connect(f"file:{f}?mode=ro", uri=True)
    try: o.execute("delete from t")
    except sqlite3.OperationalError as e: print(e)
