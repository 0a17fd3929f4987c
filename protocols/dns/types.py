# SPDX-License-Identifier: Apache-2.0
"""Names of DNS record types (https://www.iana.org/assignments/dns-parameters)."""

from __future__ import annotations

_FROM = {
    1: "A NS MD MF CNAME SOA MB MG MR NULL WKS PTR HINFO MINFO MX TXT RP AFSDB X25 ISDN RT NSAP "
    "NSAP-PTR SIG KEY PX GPOS AAAA LOC NXT EID NIMLOC SRV ATMA NAPTR KX CERT A6 DNAME SINK OPT APL "
    "DS SSHFP IPSECKEY RRSIG NSEC DNSKEY DHCID NSEC3 NSEC3PARAM TLSA SMIMEA",
    55: "HIP NINFO RKEY TALINK CDS CDNSKEY OPENPGPKEY CSYNC ZONEMD SVCB HTTPS DSYNC HHIT BRID",
    99: "SPF UINFO UID GID UNSPEC NID L32 L64 LP EUI48 EUI64",
    128: "NXNAME",
    249: "TKEY TSIG",
    256: "URI CAA AVC DOA AMTRELAY RESINFO WALLET CLA IPN",
    32768: "TA DLV",
}
"""The number of a type, and the names of it and of the types that follow it."""

TYPES = {
    name: number
    for first, names in _FROM.items()
    for number, name in enumerate(names.split(), first)
}
"""Numbers by name; without the types that ask for more than one (ANY, AXFR)."""
