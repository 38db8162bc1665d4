/* The fleet's quota, as Spin sees it: two instances, one Redis, one tenant, R = 1 token a tick.
 *
 * Whatever pacing decides is left open here (how much is wanted, given back, lent), within its caps:
 * the bound has to hold for all of it. What may go wrong: an instance crashes with all it holds,
 * calls and answers are lost, calls arrive late or twice, Redis restarts empty.
 *
 * Names are those of tenants/fleet: ask, answer, lose, cut, owed, give, want, floor.
 *
 *   admitted(W) <= R W + B + N (HOLD + CAP), for every W; and what faults add:
 *   a crash what it had not settled and what its successor is lent, Redis' restart the
 *   level that was lost. What is spent alone, while no authority answers, comes from a
 *   bucket of its own, and is bounded by that: it is not in `ahead`.
 *
 * Each of these breaks a rule, and has to be found out: NO_IDS, NO_ROOM, RENEW, WAKE_OWING.
 */
#define N     2
#ifndef B
#define B     2 /* burst */
#endif
#ifndef CAP
#define CAP   1 /* lent at most, and what a waker may spend */
#endif
#ifndef HOLD
#define HOLD  1 /* granted tokens held at most */
#endif

/* What goes wrong: calls come TWICE, as often as they like; LOST, CRASH and RESTART, FAULTS
 * times. It strikes instance 0; the other is its equal. */
#ifndef FAULTS
#define FAULTS 0
#endif
#ifndef LOST
#define LOST 0
#endif
#ifndef TWICE
#define TWICE 0
#endif
#ifndef CRASH
#define CRASH 0
#endif
#ifndef RESTART
#define RESTART 0
#endif

typedef Call {
	bit on_the_way, stale, of_the_dead;
	byte owed, give, want;
	short floor
}

typedef Instance {
	short pool;
	byte credit;
	bit known, woken, is_cut;
	bit old;    /* a tick or more has passed since the answer */
	short room; /* as answered, and what time has earned since */
	bit asking, answered;
	byte owed, granted;
	short answer_room
}

Instance inst[N];
Call call[N], late[N];
short missing; /* tat - now: what the bucket lacks */
short ahead;   /* the largest admitted(W) - R W of all W that end now */
short allowed = B + N * (HOLD + CAP);
byte faults = FAULTS;

#define MIN(a, b) ((a) < (b) -> (a) : (b))
#define MAX(a, b) ((a) > (b) -> (a) : (b))

inline admit()
{
	ahead++;
	assert(ahead <= allowed)
}

/* One ask in Redis; leaves what is granted. */
inline serve(c)
{
	if
	:: c.floor < 0 -> missing = missing + c.owed
	:: else ->
		missing = MAX(missing, MIN(missing + c.owed, B));
		missing = MAX(missing, c.floor)
	fi;
	missing = MAX(missing - c.give, 0);
	granted = MAX(MIN(c.want, B - missing), 0);
	missing = missing + granted
}

inline forget(c)
{
	c.on_the_way = 0;
	c.stale = 0;
	c.of_the_dead = 0;
	c.owed = 0;
	c.give = 0;
	c.want = 0;
	c.floor = -1
}

inline move(from, to)
{
	to.on_the_way = 1;
	to.stale = from.stale;
	to.of_the_dead = from.of_the_dead;
	to.owed = from.owed;
	to.give = from.give;
	to.want = from.want;
	to.floor = from.floor
}

inline cut(i)
{
	if
	:: !inst[i].is_cut ->
		inst[i].is_cut = 1;
		inst[i].woken = 1;
		inst[i].credit = 0
	:: else
	fi
}

/* The call is lost: what is owed stays owed, what was given back is gone, so is what was granted. */
inline lose(i)
{
	inst[i].asking = 0;
	inst[i].answered = 0;
	inst[i].owed = 0;
	inst[i].granted = 0;
	inst[i].answer_room = 0;
	cut(i)
}

proctype Runs(byte i)
{
	byte k;

end:
	do
	:: atomic { inst[i].pool > 0 ->
		inst[i].pool--;
		admit()
	   }
	:: atomic { inst[i].pool <= 0 && inst[i].credit > 0 && !inst[i].is_cut ->
		inst[i].credit--;
		inst[i].pool--;
		admit()
	   }
	/* Alone: more than this makes no difference, it is paid as far as the bucket goes. */
	:: atomic { inst[i].pool <= 0 && inst[i].is_cut && inst[i].pool > -(B + CAP) ->
		inst[i].pool--
	   }
	:: atomic { !inst[i].woken &&
#ifdef WAKE_OWING
		    inst[i].pool <= 0 &&
#else
		    inst[i].pool == 0 &&
#endif
		    (!inst[i].known || (inst[i].old
#ifndef NO_ROOM
					&& inst[i].room >= 1
#endif
					)) ->
		inst[i].woken = 1;
		inst[i].credit = CAP - 1;
		inst[i].pool--;
		admit()
	   }
	:: atomic { !inst[i].asking && !call[i].on_the_way ->
		inst[i].asking = 1;
		forget(call[i]);
		call[i].on_the_way = 1;
		if
		:: inst[i].pool > 0 ->
			select(k : 0 .. inst[i].pool);
			call[i].give = k;
			inst[i].pool = inst[i].pool - k
		:: else -> inst[i].owed = -inst[i].pool
		fi;
		call[i].owed = inst[i].owed;
		select(k : 0 .. HOLD - MAX(inst[i].pool, 0));
		call[i].want = k;
		k = 0;
		if
		:: inst[i].is_cut && inst[i].known -> call[i].floor = MAX(B - inst[i].room, 0)
		:: else
		fi
	   }
	:: atomic { inst[i].asking && inst[i].answered ->
		inst[i].asking = 0;
		inst[i].answered = 0;
		inst[i].is_cut = 0;
		inst[i].woken = 0;
		inst[i].known = 1;
		inst[i].old = 0;
		inst[i].pool = inst[i].pool + inst[i].owed + inst[i].granted;
		inst[i].room = inst[i].answer_room;
		inst[i].owed = 0;
		inst[i].granted = 0;
		inst[i].answer_room = 0;
		/* Up to the cap and what is left, less what is owed already. */
#ifdef RENEW
		k = CAP;
#else
		k = MAX(MIN(CAP, inst[i].room + MIN(inst[i].pool, 0)), 0);
		if
		:: inst[i].pool < 0 -> k = MIN(k, MAX(CAP + inst[i].pool, 0))
		:: else
		fi;
#endif
		inst[i].credit = k; /* nobody has to spend it */
		k = 0
	   }
	/* Nothing heard for too long, or the connection is gone. */
	:: atomic { inst[i].asking && ((LOST && i == 0 && faults > 0) || (!call[i].on_the_way && !inst[i].answered)) ->
		if
		:: call[i].on_the_way || inst[i].answered -> faults--
		:: else
		fi;
		if
		:: call[i].on_the_way && !late[i].on_the_way -> move(call[i], late[i])
		:: true
		fi;
		forget(call[i]);
		lose(i)
	   }
	/* A crash: all is gone, and another takes its place. */
	:: atomic { CRASH && i == 0 && faults > 0 ->
		faults--;
		allowed = allowed + CAP;
		if
		:: call[i].on_the_way && !late[i].on_the_way ->
			move(call[i], late[i]);
			late[i].of_the_dead = 1
		:: true
		fi;
		forget(call[i]);
		inst[i].pool = 0;
		inst[i].credit = 0;
		inst[i].known = 0;
		inst[i].woken = 0;
		inst[i].is_cut = 0;
		inst[i].room = 0;
		inst[i].old = 0;
		inst[i].asking = 0;
		inst[i].answered = 0;
		inst[i].owed = 0;
		inst[i].granted = 0;
		inst[i].answer_room = 0
	   }
	od
}

proctype Redis()
{
	byte i, granted;

end:
	do
	:: atomic { i = 0;
		if
		:: call[0].on_the_way
		:: call[1].on_the_way -> i = 1
		fi;
		serve(call[i]);
		inst[i].answered = 1;
		inst[i].granted = granted;
		inst[i].answer_room = B - missing;
		if /* those before it are known by their ids to be too late; not those of the dead */
		:: late[i].on_the_way && !late[i].of_the_dead -> late[i].stale = 1
		:: else
		fi;
		if /* it comes a second time */
		:: TWICE && i == 0 && !late[i].on_the_way ->
			move(call[i], late[i]);
			late[i].stale = 1
		:: true
		fi;
		forget(call[i]);
		granted = 0;
		i = 0
	   }
	:: atomic { i = 0;
		if
		:: late[0].on_the_way
		:: late[1].on_the_way -> i = 1
		fi;
		if
#ifndef NO_IDS
		:: late[i].stale
#endif
		:: else -> serve(late[i])
		fi;
		forget(late[i]);
		granted = 0;
		i = 0
	   }
	/* It restarts without its data, and all connections are gone. */
	:: atomic { RESTART && faults > 0 ->
		faults--;
		allowed = allowed + missing;
		missing = 0;
		forget(call[0]);
		forget(call[1]);
		forget(late[0]);
		forget(late[1]);
		inst[0].answered = 0;
		inst[1].answered = 0;
		inst[0].granted = 0;
		inst[1].granted = 0;
		inst[0].answer_room = 0;
		inst[1].answer_room = 0
	   }
	od
}

proctype Clock()
{
	byte i;

end:
	do
	:: atomic { true ->
		missing = MAX(missing - 1, 0);
		ahead = MAX(ahead - 1, 0);
		i = 0;
		do
		:: i < N ->
			if
			:: inst[i].known ->
				inst[i].old = 1;
				inst[i].room = MIN(inst[i].room + 1, B)
			:: else
			fi;
			i++
		:: else -> break
		od;
		i = 0
	   }
	od
}

init
{
	atomic {
		forget(call[0]);
		forget(call[1]);
		forget(late[0]);
		forget(late[1]);
		run Redis();
		run Clock();
		run Runs(0);
		run Runs(1)
	}
}
