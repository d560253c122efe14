"""A DNS server whose answers a script sets: one zone at a time, as a test suite writes them."""
import smtplib
import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset


class _Proxied(smtplib.SMTP):
    """Comes through a proxy that says where from, before the greeting."""

    def __init__(self, port, ip):
        self.ip = ip
        super().__init__("127.0.0.1", port, timeout=60)

    def _get_socket(self, host, port, timeout):
        family, ours = ("TCP6", "::1") if ":" in self.ip else ("TCP4", "127.0.0.1")
        connection = super()._get_socket(host, port, timeout)
        connection.sendall(f"PROXY {family} {self.ip} {ours} 40000 25\r\n".encode())
        return connection


def proxied(port, ip):
    """A client of that address, greeted."""
    return _Proxied(port, ip)


class Names:
    """Answers over UDP on a port of its own; `zone` is name ─► list of (type, text), `silent` are names that get no
    answer but for the records they have."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.zone, self.silent, self.failing = {}, set(), {}
        threading.Thread(target=self._serve, daemon=True).start()

    def set(self, zone, silent=(), failing=None):
        self.zone = {name.lower().rstrip("."): records for name, records in zone.items()}
        self.silent = {name.lower().rstrip(".") for name in silent}
        self.failing = {name.lower().rstrip("."): code for name, code in (failing or {}).items()}

    def _serve(self):
        while True:
            octets, peer = self.socket.recvfrom(4096)
            try:
                answer = self._answer(dns.message.from_wire(octets))
            except Exception as error:  # A name that the library can't write: nobody else could serve it either.
                print("names:", error)
                continue
            if answer is not None:
                self.socket.sendto(answer.to_wire(max_size=65535), peer)

    def _answer(self, query):
        question = query.question[0]
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        name = b".".join(question.name.labels[:-1]).decode("latin-1").lower()
        if name in self.silent and not any(of == dns.rdatatype.to_text(question.rdtype) for of, _ in self.zone.get(name, [])):
            return None
        if name in self.failing:
            response.set_rcode(dns.rcode.from_text(self.failing[name]))
            return response
        owner, hops = question.name, 0
        while name in self.zone and hops < 16:
            alias = next((text for kind, text in self.zone[name] if kind == "CNAME"), None)
            if alias is None or question.rdtype == dns.rdatatype.CNAME:
                break
            response.answer.append(self._rrset(owner, "CNAME", [alias]))
            owner, name, hops = dns.name.from_text(alias), alias.lower().rstrip("."), hops + 1
        exists = name in self.zone or any(known.endswith("." + name) for known in self.zone)
        if not exists:
            response.set_rcode(dns.rcode.NXDOMAIN)
            return response
        kind = dns.rdatatype.to_text(question.rdtype)
        found = [text for of, text in self.zone.get(name, []) if of == kind]
        if found:
            response.answer.append(self._rrset(owner, kind, found))
        return response

    def _rrset(self, owner, kind, texts):
        rdtype = dns.rdatatype.from_text(kind)
        rrset = dns.rrset.RRset(owner, dns.rdataclass.IN, rdtype)
        # Nothing is to be remembered from one case to the next.
        rrset.update_ttl(0)
        for text in texts:
            if kind == "TXT":
                cls = dns.rdata.get_rdata_class(dns.rdataclass.IN, rdtype)
                rrset.add(cls(dns.rdataclass.IN, rdtype, [part for part in text]), 0)
            else:
                rrset.add(dns.rdata.from_text(dns.rdataclass.IN, rdtype, text), 0)
        return rrset
