"""Sockets of both kinds and families, for the tests of a cut.

network.py serve PORT          echoes over TCP and UDP, IPv4 and IPv6; says "up", and what datagrams
                               it gets
network.py send HOST PORT TEXT sends a datagram
network.py probe HOST PORT...  asks each once over TCP and UDP; prints JSON {"tcp HOST": true, ...}
network.py hold HOST PORT      connects, says "up", and for each line of stdin sends one byte and
                               says "echo" or "stalled" after a second
"""

import json
import socket
import sys
import threading

TIMEOUT = 1.0


def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def serve(port):
    def echo(connection):
        try:
            while data := connection.recv(1024):
                connection.sendall(data)
        except OSError:
            pass

    def accept(listener):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=echo, args=[connection], daemon=True).start()

    def answer(datagrams):
        while True:
            data, peer = datagrams.recvfrom(1024)
            print(data.decode(), flush=True)
            try:
                datagrams.sendto(data, peer)
            except OSError:
                pass

    threads = []
    for host in ("0.0.0.0", "::"):
        for kind, work in ((socket.SOCK_STREAM, accept), (socket.SOCK_DGRAM, answer)):
            sock = socket.socket(family(host), kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if host == "::":
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(64)
            threads.append(threading.Thread(target=work, args=[sock]))
    for thread in threads:
        thread.start()
    print("up", flush=True)


def probe(targets):
    results = {}

    def ask(kind, name, host, port):
        try:
            with socket.socket(family(host), kind) as sock:
                sock.settimeout(TIMEOUT)
                sock.connect((host, port))
                sock.send(b"x")
                results[f"{name} {host}"] = sock.recv(1) == b"x"
        except OSError:
            results[f"{name} {host}"] = False

    threads = []
    for host, port in targets:
        for kind, name in ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")):
            threads.append(threading.Thread(target=ask, args=[kind, name, host, int(port)]))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(results), flush=True)


def hold(host, port):
    with socket.create_connection((host, int(port)), TIMEOUT) as sock:
        print("up", flush=True)
        for number, _ in enumerate(sys.stdin):
            said = bytes([number % 256])
            sock.settimeout(TIMEOUT)
            try:
                sock.send(said)
                # Late answers to what was said before may come first.
                while (heard := sock.recv(1)) not in (said, b""):
                    pass
                print("echo" if heard else "closed", flush=True)
            except TimeoutError:
                print("stalled", flush=True)


match sys.argv[1:]:
    case ["serve", port]:
        serve(int(port))
    case ["send", host, port, text]:
        with socket.socket(family(host), socket.SOCK_DGRAM) as sock:
            try:
                sock.sendto(text.encode(), (host, int(port)))
            except PermissionError:
                # What a process is told whose packet is dropped on its way out.
                pass
    case ["probe", *rest]:
        probe(list(zip(rest[::2], rest[1::2])))
    case ["hold", host, port]:
        hold(host, port)
