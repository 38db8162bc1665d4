#include "dataplane/conn/probe.h"

static void connected(struct sl_conn *conn, uint64_t now_ns)
{
	(void)now_ns;
	((struct sl_probe *)conn)->up = true;
	sl_io_abort(conn); // nothing was said: no TIME_WAIT for it
}

static void received(struct sl_conn *conn, struct sl_bytes bytes, uint64_t now_ns)
{
	(void)conn, (void)bytes, (void)now_ns;
}

static void closed(struct sl_conn *conn, enum sl_close why, int error)
{
	struct sl_probe *probe = (struct sl_probe *)conn;

	(void)why;
	probe->ended(probe, probe->up ? NULL : error ? strerror(error) : "closed by the peer");
}

static const struct sl_io_upcalls upcalls = {
	.connected = connected,
	.received = received,
	.closed = closed,
};

int sl_probe_start(struct sl_probe *probe, struct sl_io *io, const struct sl_address *to,
		   uint64_t timeout_ns)
{
	probe->conn = (struct sl_conn){.upcalls = &upcalls};
	probe->up = false;
	return sl_io_connect(io, &probe->conn, to, timeout_ns);
}

void sl_probe_cancel(struct sl_probe *probe)
{
	sl_io_abort(&probe->conn);
}
