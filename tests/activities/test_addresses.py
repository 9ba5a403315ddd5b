"""Only the public internet is called, in whatever form an address is written and whatever a name stands for."""

from __future__ import annotations

import pytest
from yarl import URL

from holdfast.activities.addresses import AddressRefused, is_public, place_of


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.169.254",
        ),
        *("192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fe80::1%lo", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "::ffff:0:10.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1"),
        "2001:0:7f00:1::1",
    ],
)
def test_an_address_of_no_public_network_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"]
)
def test_a_public_address_is_taken(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://localhost/",
            "http://LOCALHOST./",
            "http://127.0.0.1/",
            "https://[::1]/",
            "http://[::ffff:127.0.0.1]/",
        ),
        *("http://2130706433/", "http://127.1/", "http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://0/"),
        *("http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://①②⑦.⓪.⓪.①/"),
        *("http://1.1.1.1:22/", "https://1.1.1.1:8443/", "http://user:word@1.1.1.1/", "http://1.1.1.1@localhost/"),
        *("file:///etc/passwd", "ftp://1.1.1.1/", "gopher://1.1.1.1/", "//1.1.1.1/", "/relative", "http://"),
    ],
)
async def test_a_url_that_leads_elsewhere_is_refused(url: str) -> None:
    with pytest.raises((AddressRefused, ValueError)):
        await place_of(URL(url))


async def test_a_public_address_is_where_a_request_goes() -> None:
    place = await place_of(URL("https://1.1.1.1/dns"))
    assert (place.host, place.port, place.addresses) == ("1.1.1.1", 443, ("1.1.1.1",))


async def test_only_the_very_host_and_port_that_is_allowed_is_let_through() -> None:
    allow = ("127.0.0.1:8080", "[::1]:8080")
    assert (await place_of(URL("http://127.0.0.1:8080/"), allow)).addresses == ("127.0.0.1",)
    assert (await place_of(URL("http://[::1]:8080/"), allow)).addresses == ("::1",)
    for url in ("http://127.0.0.1/", "http://127.0.0.1:8081/", "http://127.0.0.2:8080/", "http://localhost:8080/"):
        with pytest.raises(AddressRefused):
            await place_of(URL(url), allow)
