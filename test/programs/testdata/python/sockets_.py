import socket, threading, select, selectors, socketserver, http.server, urllib.request, os, struct, array
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(self.path.encode() * 1000)
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H); threading.Thread(target=s.serve_forever, daemon=True).start()
for i in range(10): d = urllib.request.urlopen(f"http://127.0.0.1:{s.server_port}/p{i}").read()
print(len(d)); s.shutdown(); s.server_close()
l = socket.create_server(("localhost", 0)); port = l.getsockname()[1]
def client():
    c = socket.create_connection(("127.0.0.1", port)); c.sendall(b"z" * 2000000); c.shutdown(socket.SHUT_WR); print(c.recv(10)); c.close()
t = threading.Thread(target=client); t.start(); c, _ = l.accept(); n = 0
while True:
    b = c.recv(65536)
    if not b: break
    n += len(b)
print(n); c.sendall(b"bye"); t.join(); c.close(); l.close()
try: socket.create_connection(("127.0.0.1", port), timeout=2)
except ConnectionRefusedError: print("refused")
a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a.bind(("127.0.0.1", 0)); b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
b.sendto(b"dgram", a.getsockname()); print(a.recvfrom(100)[0])
a.settimeout(0.05)
try: a.recv(1)
except socket.timeout: print("timed out")
x, y = socket.socketpair(); r, w = os.pipe(); os.write(w, b"passed")
socket.send_fds(x, [b"m"], [r]) if hasattr(socket, "send_fds") else x.sendmsg([b"m"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [r]))])
m, anc, _, _ = y.recvmsg(10, socket.CMSG_LEN(4)); fd = array.array("i", anc[0][2][:4])[0]; print(m, os.read(fd, 10))
sel = selectors.DefaultSelector(); sel.register(y, selectors.EVENT_READ); print(sel.select(0)); x.send(b"1"); print(len(sel.select(1)))
u = socket.socket(socket.AF_UNIX); u.bind("sock"); u.listen(5); k = socket.socket(socket.AF_UNIX); k.connect("sock"); v, _ = u.accept(); k.send(b"unix"); print(v.recv(10))
print(struct.unpack("3i", v.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0] == os.getpid())
if socket.has_ipv6:
    l = socket.socket(socket.AF_INET6)
    try:
        l.bind(("::1", 0)); l.listen(1); c = socket.create_connection(l.getsockname()[:2]); c.send(b"6"); print(l.accept()[0].recv(1))
    except OSError as e: print("v6", e.errno)
print(socket.gethostbyname("localhost"))
