#include "dataplane/conn/server.h"

#include <stdlib.h>
#include <unistd.h>

#include "dataplane/conn/session.h"

#define SL_TICK_NS SL_S // how often a session looks at its timeouts

struct sl_server *sl_server_create(const struct sl_server_env *env)
{
	struct sl_server *server = calloc(1, sizeof(*server));

	if (!server)
		return NULL;
	server->env = *env;
	server->counters = calloc(1, sizeof(*server->counters));
	if (!server->counters ||
	    sl_metrics_add(env->metrics, sl_conn_counter_rows, sl_conn_counter_row_count,
			   server->counters, (int)env->shard, NULL) < 0) {
		free(server->counters);
		free(server);
		return NULL;
	}
	sl_pool_init(&server->sessions_pool, env->connection_memory, sizeof(struct sl_session));
	sl_pool_init(&server->calls_pool, env->connection_memory, sizeof(struct sl_call));
	sl_random_init(&server->random, env->shard + 1);
	return server;
}

void sl_server_destroy(struct sl_server *server)
{
	if (!server)
		return;
	assert(!server->sessions);
	sl_metrics_remove(server->env.metrics, server->counters);
	sl_pool_fini(&server->sessions_pool);
	sl_pool_fini(&server->calls_pool);
	free(server->counters);
	free(server);
}

static void tell_watches(struct sl_session *session)
{
	for (struct sl_call *call = session->calls; session->watches && call; call = call->next)
		sl_call_tell_watch(call);
}

// A balancer that watches us turns elsewhere at once.
static void look_at_health(struct sl_server *server)
{
	const bool unready = sl_server_is_unready(server);

	if (unready == server->unready)
		return;
	server->unready = unready;
	for (struct sl_session *session = server->sessions; session; session = session->next)
		tell_watches(session);
}

void sl_server_turn(struct sl_server *server, const struct sl_server_limits *limits,
		    uint64_t now_ns)
{
	server->now_ns = now_ns;
	server->limits = *limits;
	// The windows let a whole body of the largest size come without waiting for us.
	server->http_options = (struct sl_http_server_options){
		.streams_max = (uint32_t)limits->streams_max,
		.header_bytes_max = (uint32_t)limits->header_bytes_max,
		.stream_window = 1 * SL_MIB,
		.connection_window = 16 * SL_MIB,
		.pings_without_data_max = 2,
		.glitches_max = 1000,
		.date = server->date_s ? server->date : NULL,
	};
	if (SL_UNLIKELY(server->watches))
		look_at_health(server);
}

void sl_server_clock(struct sl_server *server, uint64_t wall_ns)
{
	if (wall_ns < (server->date_s + 1) * SL_S && wall_ns >= server->date_s * SL_S)
		return;
	server->date_s = wall_ns / SL_S;
	sl_http_date_print(server->date, server->date_s);
	server->http_options.date = server->date;
}

// The session's next look at its timeouts.
static void arm(struct sl_session *session)
{
	sl_timer_set(session->server->env.timers, &session->timer,
		     session->server->now_ns + SL_TICK_NS);
}

static void go_away(struct sl_session *session, const char *debug)
{
	session->going_away = true;
	if (session->http) {
		sl_http_server_goaway(session->http, debug);
		sl_session_mark(session);
	}
}

void sl_session_go_away(struct sl_session *session, const char *debug)
{
	if (session->going_away)
		return;
	go_away(session, debug);
	session->age_at_ns = session->server->now_ns; // the age's steps do the rest
}

static void resume(struct sl_timer *timer, uint64_t now_ns)
{
	struct sl_session *session = SL_CONTAINER_OF(timer, struct sl_session, resume);

	session->paused = false;
	if (session->partial_since_ns)
		session->partial_since_ns = now_ns; // it could not send the rest
	if (!session->closing)
		sl_io_pause(&session->conn, false);
}

// Age (item 29): GOAWAY when its time has come, the final one a second later, the close when no
// call is open or the grace is over.
static bool aged(struct sl_session *session, uint64_t now_ns)
{
	const struct sl_server_limits *limits = &session->server->limits;

	if (!session->age_at_ns || now_ns < session->age_at_ns)
		return false;
	if (!session->going_away)
		go_away(session, "max_age");
	if (now_ns >= session->age_at_ns + SL_TICK_NS && session->http && !session->final_sent) {
		session->final_sent = true;
		sl_http_server_goaway_final(session->http);
		sl_session_mark(session);
	}
	return (session->final_sent && !session->open_calls) ||
	       now_ns >= session->age_at_ns + limits->age_grace_ns;
}

static void check_timeouts(struct sl_timer *timer, uint64_t now_ns)
{
	struct sl_session *session = SL_CONTAINER_OF(timer, struct sl_session, timer);
	struct sl_server *server = session->server;
	const struct sl_server_limits *limits = &server->limits;
	struct sl_call *next;

	server->now_ns = now_ns;
	if (session->closing)
		return;
	arm(session);
	for (struct sl_call *call = session->calls; call; call = next) {
		next = call->next;
		sl_call_check_progress(call);
	}
	// A peer that does not read its answers holds memory: it has body_timeout to take some.
	if (session->in_flight && now_ns - session->writing_since_ns > limits->body_timeout_ns) {
		session->closing = true;
		sl_io_abort(&session->conn);
		return;
	}
	if (session->partial_since_ns &&
	    now_ns - session->partial_since_ns > limits->header_timeout_ns) {
		sl_session_close(session, 0);
		return;
	}
	if (aged(session, now_ns)) {
		session->ending = true;
		sl_session_mark(session);
		return;
	}
	if (limits->idle_timeout_ns && session->open_calls == session->watches &&
	    now_ns - session->quiet_since_ns > limits->idle_timeout_ns) {
		if (!session->going_away)
			go_away(session, "max_idle");
		session->ending = true;
		sl_session_mark(session);
	}
}

static void start(struct sl_session *session, struct sl_server *server, struct sl_tls *tls)
{
	const uint64_t age_ns = server->limits.age_max_ns;

	*session = (struct sl_session){
		.conn.upcalls = &sl_session_upcalls,
		.server = server,
		.tls = tls,
		.opened_ns = server->now_ns,
		.quiet_since_ns = server->now_ns,
		.partial_since_ns = server->now_ns, // it owes us a head, or a handshake
		.timer.fire = check_timeouts,
		.resume.fire = resume,
	};
	// Jittered by a tenth, so that a fleet's connections do not come back all at once.
	if (age_ns)
		session->age_at_ns = server->now_ns + age_ns - age_ns / 10 +
				     sl_random_below(&server->random, age_ns / 5);
}

void sl_server_accept(struct sl_server *server, int fd, const struct sl_address *peer,
		      struct sl_tls_context *context, uint64_t now_ns)
{
	struct sl_session *session = NULL;
	struct sl_tls *tls = NULL;

	server->now_ns = now_ns;
	if (server->draining || server->session_count >= server->limits.connections_max)
		goto fail;
	session = sl_pool_take(&server->sessions_pool);
	if (!session)
		goto fail;
	tls = context ? sl_tls_create(context, server->env.connection_memory) : NULL;
	if (context && !tls)
		goto fail;
	start(session, server, tls);
	if (sl_io_adopt(server->env.io, &session->conn, fd, peer) < 0) {
		fd = -1; // adopt has closed it
		goto fail;
	}
	session->next = server->sessions;
	if (session->next)
		session->next->prev = session;
	server->sessions = session;
	server->session_count++;
	sl_count(&server->counters->connections[0], 1);
	sl_gauge(&server->counters->connections_open[0], server->session_count);
	arm(session);
	return;
fail:
	sl_count(&server->counters->connections_refused[0], 1);
	sl_tls_destroy(tls);
	if (session)
		sl_pool_give(&server->sessions_pool, session);
	if (fd >= 0)
		close(fd);
}

void sl_server_forget(struct sl_session *session)
{
	struct sl_server *server = session->server;

	sl_timer_cancel(server->env.timers, &session->timer);
	sl_timer_cancel(server->env.timers, &session->resume);
	if (session->prev)
		session->prev->next = session->next;
	else
		server->sessions = session->next;
	if (session->next)
		session->next->prev = session->prev;
	if (session->dirty) {
		struct sl_session **link = &server->dirty;

		while (*link != session)
			link = &(*link)->next_dirty;
		*link = session->next_dirty;
	}
	server->session_count--;
	sl_gauge(&server->counters->connections_open[0], server->session_count);
	sl_pool_give(&server->sessions_pool, session);
}

void sl_server_answer(struct sl_server *server, struct sl_request *request, uint64_t now_ns)
{
	struct sl_call *call = request->origin.call;

	server->now_ns = now_ns;
	if (!call)
		return;
	request->origin.call = NULL;
	call->request = NULL;
	sl_call_answer(call, request, request->reason, request->retry_after_ns);
}

void sl_server_flush(struct sl_server *server, uint64_t now_ns)
{
	struct sl_session *dirty = server->dirty;

	server->now_ns = now_ns;
	server->dirty = NULL;
	while (dirty) {
		struct sl_session *session = dirty;

		dirty = session->next_dirty;
		session->dirty = false;
		sl_session_flush(session);
	}
}

bool sl_server_wants_flush(const struct sl_server *server)
{
	return server->dirty != NULL;
}

void sl_server_drain(struct sl_server *server, uint64_t now_ns)
{
	server->now_ns = now_ns;
	server->draining = true;
	for (struct sl_session *session = server->sessions; session; session = session->next) {
		// The age's steps do the rest: final GOAWAY, then the close once nothing is open.
		if (session->closing)
			continue;
		if (!session->going_away)
			go_away(session, "drain");
		session->age_at_ns = now_ns - (session->http2 ? 0 : SL_TICK_NS);
		tell_watches(session);
		if (!session->open_calls && !session->http2) {
			session->ending = true;
			sl_session_mark(session);
		}
	}
}

void sl_server_refuse_all(struct sl_server *server, enum sl_reason reason, uint64_t now_ns)
{
	server->now_ns = now_ns;
	for (struct sl_session *session = server->sessions; session; session = session->next) {
		for (struct sl_call *call = session->calls; call; call = call->next) {
			struct sl_request *request = call->request;

			if (!request || !call->with_shard || call->answered)
				continue;
			request->origin.call = NULL;
			call->request = NULL;
			sl_call_answer(call, NULL, reason, 0);
		}
	}
}

void sl_server_close_all(struct sl_server *server)
{
	for (struct sl_session *session = server->sessions; session; session = session->next)
		sl_session_close(session, 0);
}

uint32_t sl_server_sessions(const struct sl_server *server)
{
	return server->session_count;
}
