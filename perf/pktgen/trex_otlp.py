"""TRex, stateless: OTLP datagrams from ./otlp.pcap (sluice-pktgen --pcap), over and over."""

from trex_stl_lib.api import STLProfile


class OtlpDatagrams:
    def get_streams(self, direction=0, **_):
        return STLProfile.load_pcap("otlp.pcap", ipg_usec=1.0, loop_count=0).get_streams()


def register():
    return OtlpDatagrams()
