"""What a client may name and the guard must refuse: one line a case, each proven in three ways.

Add a line, and tests/integration/test_guard_table.py tries it as a recording, as the target of a redirect and
as a webhook. `{port}` is the port of a listener on every address of this machine.
"""

from typing import NamedTuple

# A reserved block of global unicast: public by every rule, routed nowhere.
PUBLIC = "2d00::1"


class Case(NamedTuple):
    """A client's URL, and the code that refuses it. `answers`: what its name leads to, look-up by look-up."""

    kind: str
    url: str
    code: str = "address_refused"
    answers: tuple[tuple[str, ...], ...] = ()


URLS = [
    # Loopback, and all the ways that a resolver lets it be written in.
    Case("loopback", "http://127.0.0.1:{port}/"),
    Case("loopback", "http://127.255.255.254:{port}/"),  # all of 127/8 is
    Case("loopback", "http://localhost:{port}/"),
    Case("loopback", "http://LOCALHOST:{port}/"),
    Case("loopback", "http://[::1]:{port}/"),
    Case("loopback", "http://[0:0:0:0:0:0:0:1]:{port}/"),
    Case("short", "http://127.1:{port}/"),  # inet_aton fills in zeros
    Case("short", "http://127.0.1:{port}/"),
    Case("integer", "http://2130706433:{port}/"),  # 127.0.0.1 as one number
    Case("integer", "http://2852039166/"),  # 169.254.169.254
    Case("integer", "http://3232235521/"),  # 192.168.0.1
    Case("hex", "http://0x7f000001:{port}/"),
    Case("hex", "http://0x7F.0x0.0x0.0x1:{port}/"),
    Case("hex", "http://0xa9fea9fe/"),  # 169.254.169.254
    Case("octal", "http://0177.0.0.1:{port}/"),
    Case("octal", "http://017700000001:{port}/"),
    Case("octal", "http://0251.0376.0251.0376/"),  # 169.254.169.254
    Case("octal", "http://012.0.0.1/"),  # 10.0.0.1, and not 12.0.0.1
    Case("mixed", "http://0x7f.1:{port}/"),
    Case("mixed", "http://0177.0x0.1:{port}/"),
    Case("mixed", "http://0xa9.254.0251.254/"),
    # "This host": Linux connects to loopback.
    Case("unspecified", "http://0.0.0.0:{port}/"),
    Case("unspecified", "http://0:{port}/"),
    Case("unspecified", "http://0.1.2.3/"),
    Case("unspecified", "http://[::]:{port}/"),
    # Networks of one's own.
    Case("private", "http://10.0.0.1/"),
    Case("private", "http://10.255.255.255/"),
    Case("private", "http://172.16.0.1/"),
    Case("private", "http://172.31.255.255/"),
    Case("private", "http://192.168.0.1/"),
    Case("private", "https://192.168.0.1/"),  # TLS changes nothing
    Case("private", "http://[fc00::1]/"),
    Case("private", "http://[fd12:3456:789a::1]/"),
    Case("private", "http://[fec0::1]/"),  # site-local, before fc00::/7
    Case("carrier NAT", "http://100.64.0.1/"),
    Case("carrier NAT", "http://100.127.255.254/"),
    Case("link-local", "http://169.254.0.1/"),
    Case("link-local", "http://[fe80::1]/"),
    Case("zone", "http://[fe80::1%25lo]:{port}/"),
    Case("zone", "http://[fe80::1%251]:{port}/"),
    Case("zone", "http://[::1%25lo]:{port}/"),
    Case("zone", "http://[2606:4700:4700::1111%25lo]/"),  # a public address is not on an interface of ours
    # Where clouds hand out credentials.
    Case("metadata", "http://169.254.169.254/latest/meta-data/"),
    Case("metadata", "http://169.254.170.2/v2/credentials"),  # ECS
    Case("metadata", "http://[fd00:ec2::254]/latest/meta-data/"),  # EC2
    Case("metadata", "http://[fd20:ce::254]/"),  # Google
    Case("metadata", "http://100.100.100.200/latest/meta-data/"),  # Alibaba
    Case("metadata", "http://192.0.0.192/opc/v2/"),  # Oracle
    Case("metadata", "http://168.63.129.16/machine"),  # Azure's host
    # Names of it: refused unasked, whatever they resolve to.
    Case("metadata name", "http://metadata.google.internal/", answers=((PUBLIC,),)),
    Case("metadata name", "http://metadata.google.internal./", answers=((PUBLIC,),)),
    Case("metadata name", "http://METADATA.google.INTERNAL/", answers=((PUBLIC,),)),
    Case("metadata name", "http://metadata/", answers=((PUBLIC,),)),  # by a search domain
    Case("metadata name", "http://metadata.goog/", answers=((PUBLIC,),)),
    Case("metadata name", "http://instance-data/", answers=((PUBLIC,),)),
    Case("metadata name", "http://instance-data.ec2.internal/", answers=((PUBLIC,),)),
    Case("metadata name", "http://metadata.tencentyun.com/", answers=((PUBLIC,),)),
    Case("metadata name", "http://api.metadata.cloud.ibm.com/", answers=((PUBLIC,),)),
    # IPv4 inside IPv6.
    Case("mapped", "http://[::ffff:127.0.0.1]:{port}/"),
    Case("mapped", "http://[::ffff:7f00:1]:{port}/"),
    Case("mapped", "http://[0:0:0:0:0:ffff:169.254.169.254]/"),
    Case("mapped", "http://[::ffff:10.0.0.1]/"),
    Case("compatible", "http://[::127.0.0.1]:{port}/"),
    Case("compatible", "http://[::a9fe:a9fe]/"),
    Case("translated", "http://[::ffff:0:127.0.0.1]/"),  # SIIT, RFC 2765
    Case("6to4", "http://[2002:7f00:1::]/"),
    Case("6to4", "http://[2002:a9fe:a9fe::1]/"),
    Case("6to4", "http://[2002:808:808::1]/"),  # even with a public address in it
    Case("NAT64", "http://[64:ff9b::127.0.0.1]/"),
    Case("NAT64", "http://[64:ff9b::a9fe:a9fe]/"),
    Case("NAT64", "http://[64:ff9b:1::8.8.8.8]/"),  # of one's own network, RFC 8215
    Case("Teredo", "http://[2001:0:808:808::f7f7:f7f7]/"),
    # Nobody's, or everybody's.
    Case("broadcast", "http://255.255.255.255/"),
    Case("multicast", "http://224.0.0.1/"),
    Case("multicast", "http://239.255.255.250:{port}/"),  # SSDP
    Case("multicast", "http://[ff02::1]/"),
    Case("multicast", "http://[ff0e::1]/"),  # global in scope, and still no unicast
    Case("reserved", "http://240.0.0.1/"),
    Case("reserved", "http://192.0.0.8/"),
    Case("reserved", "http://198.18.0.1/"),  # benchmarks
    Case("reserved", "http://192.88.99.1/"),  # 6to4 relays
    Case("reserved", "http://[100::1]/"),  # discarded
    Case("reserved", "http://[4000::1]/"),  # beyond global unicast
    Case("reserved", "http://[5f00::1]/"),  # segment routing
    Case("documentation", "http://192.0.2.1/"),
    Case("documentation", "http://203.0.113.1/"),
    Case("documentation", "http://[2001:db8::1]/"),
    Case("documentation", "http://[3fff::1]/"),
    # A trailing dot makes no other host of it.
    Case("trailing dot", "http://localhost.:{port}/", answers=(("127.0.0.1",),)),
    Case("trailing dot", "http://127.0.0.1.:{port}/", answers=(("127.0.0.1",),)),
    Case("trailing dot", "http://recordings.test.:{port}/", answers=(("127.0.0.1",),)),
    # Names that lead inside, at once or later.
    Case("name", "http://recordings.test:{port}/", answers=(("127.0.0.1",),)),
    Case("name", "http://recordings.test:{port}/", answers=(("::1",),)),
    Case("name", "http://recordings.test:{port}/", answers=((PUBLIC, "127.0.0.1"),)),  # one is enough
    Case("name", "http://recordings.test:{port}/", answers=(("127.0.0.1", PUBLIC),)),
    Case("name", "http://recordings.test:{port}/", answers=(("::ffff:127.0.0.1",),)),
    Case("name", "http://nobody.test:{port}/", "source_unreachable", answers=((),)),
    Case("name", "http://127.0.0.1.nip.test:{port}/", answers=(("127.0.0.1",),)),  # as anybody may set up
    # The public address is tried, where nobody is; the private one of the next look-up is not asked for.
    Case("rebinding", "http://recordings.test/", "source_unreachable", answers=((PUBLIC,), ("127.0.0.1",))),
    # IDN: other scripts' digits, dots and letters that a browser would fold into ASCII.
    Case("IDN", "http://１２７.0.0.1:{port}/", "invalid_input"),
    Case("IDN", "http://①②⑦.⓪.⓪.①:{port}/", "invalid_input"),
    Case("IDN", "http://127。0。0。1:{port}/", "invalid_input"),
    Case("IDN", "http://ⓛocalhost:{port}/", "invalid_input"),
    Case("IDN", "http://localhoſt:{port}/", "invalid_input"),
    Case("IDN", "http://loca\u00adlhost:{port}/", "invalid_input"),  # a soft hyphen
    Case("IDN", "http://xn--lcalhost-zwg:{port}/", answers=(("127.0.0.1",),)),
    Case("IDN", "http://הקלטות.test:{port}/", answers=(("127.0.0.1",),)),
    # Other schemes.
    Case("scheme", "ftp://127.0.0.1:{port}/a", "unsupported_scheme"),
    Case("scheme", "file:///etc/passwd", "unsupported_scheme"),
    Case("scheme", "FILE:///etc/passwd", "unsupported_scheme"),
    Case("scheme", "file://127.0.0.1:{port}/etc/passwd", "unsupported_scheme"),
    Case("scheme", "data:audio/wav;base64,UklGRg==", "unsupported_scheme"),
    Case("scheme", "gopher://127.0.0.1:{port}/_x", "unsupported_scheme"),
    Case("scheme", "dict://127.0.0.1:{port}/x", "unsupported_scheme"),
    Case("scheme", "ldap://127.0.0.1:{port}/", "unsupported_scheme"),
    Case("scheme", "rtsp://127.0.0.1:{port}/a", "unsupported_scheme"),
    Case("scheme", "s3://bucket/a", "unsupported_scheme"),
    Case("scheme", "unix:///run/redis.sock", "unsupported_scheme"),
    Case("scheme", "http+unix://%2Frun%2Fredis.sock/", "unsupported_scheme"),
    Case("scheme", "blob:other-job/source", "unsupported_scheme"),  # our own word for a stored recording
    # What FFmpeg would open.
    Case("scheme", "concat:/etc/passwd|/etc/hosts", "unsupported_scheme"),
    Case("scheme", "subfile,,start,0,end,9,,:/etc/passwd", "unsupported_scheme"),
    Case("scheme", "crypto:file:///etc/passwd", "unsupported_scheme"),
    Case("scheme", "pipe:0", "unsupported_scheme"),
    Case("scheme", "tcp://127.0.0.1:{port}", "unsupported_scheme"),
    Case("scheme", "hls+http://127.0.0.1:{port}/a.m3u8", "unsupported_scheme"),
    Case("scheme", "127.0.0.1:{port}/a", "unsupported_scheme"),
    Case("scheme", "//127.0.0.1:{port}/a", "unsupported_scheme"),
    Case("scheme", "", "unsupported_scheme"),
    # User names, and what is only there to look like another host.
    Case("userinfo", "http://me:word@recordings.test/", "invalid_input"),
    Case("userinfo", "http://me@recordings.test/", "invalid_input"),
    Case("userinfo", "http://@127.0.0.1:{port}/"),  # an empty one is none
    Case("userinfo", "http://recordings.test@127.0.0.1:{port}/", "invalid_input"),
    Case("userinfo", "http://recordings.test:80@127.0.0.1:{port}/", "invalid_input"),
    Case("userinfo", "http://127.0.0.1:{port}\\@recordings.test/"),  # a backslash ends the host
    Case("userinfo", "http://127.0.0.1:{port}#@recordings.test/"),
    Case("userinfo", "http://127.0.0.1:{port}?@recordings.test/"),
    # Ports.
    Case("port", "http://recordings.test:22/", answers=((PUBLIC,),)),
    Case("port", "http://recordings.test:25/", answers=((PUBLIC,),)),
    Case("port", "https://recordings.test:6379/", answers=((PUBLIC,),)),
    Case("port", "http://recordings.test:0/", answers=((PUBLIC,),)),
    Case("port", "http://8.8.8.8:6379/"),
    Case("port", "http://recordings.test:99999/", "invalid_input"),
    Case("port", "http://recordings.test:port/", "invalid_input"),
    Case("port", "http://recordings.test:-1/", "invalid_input"),
    # No host, or none that can be.
    Case("host", "http:///a", "invalid_input"),
    Case("host", "https://", "invalid_input"),
    Case("host", "http://a..test/", "invalid_input"),
    Case("host", "http://" + "a" * 64 + ".test/", "invalid_input"),
    Case("host", "http://[::1/", "invalid_input"),
    Case("host", "http://[127.0.0.1]:{port}/", "invalid_input"),
    Case("host", "http://[::1].test:{port}/", "invalid_input"),
    Case("host", "http://recordings.test\n.test/", "invalid_input"),
    Case("host", "http://127.0.0.1\t:{port}/", "invalid_input"),
    Case("host", "http://127.0.0.1%00.test:{port}/", "invalid_input"),
    Case("host", "http://recordings.test%2f@127.0.0.1:{port}/", "invalid_input"),
]
