-- One call of an instance: for each account what it owes is taken, what it gives back is returned,
-- and of what it wants it gets what the bucket has. wire.h has the layout of argument and reply.
--
-- A bucket is `tat`, the time at which it will be full again: tat - now is what is missing from it,
-- as time at the rate R. It may lie further ahead than the burst B: that is debt.
--
-- A sliding window (B < 0: -B tokens in -B / R seconds) is what was taken in the present window and
-- in the one before, and when the present one began; of the one before counts the part that a window
-- that ends now still covers. What was kept as the one is taken over as the other.
--
-- What lies in our keys may be anything: another type, another length, numbers that nobody wrote.
-- Such a field counts as new, and the reply says how many there were.
local un, pk, floor, ceil, exp = struct.unpack, struct.pack, math.floor, math.ceil, math.exp
local min, max, arg = math.min, math.max, ARGV[1]
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local version, me, id, beat, count, at = un('>Bc16dBH', arg)
if version ~= 1 then return redis.error_reply('SLUICE version ' .. version) end
local mended, alive = 0, 0

-- A key of another type is of no use to anybody here.
local function safely(command, key, ...)
  local got = redis.pcall(command, key, ...)
  if type(got) == 'table' and got.err then
    if not string.find(got.err, 'WRONGTYPE', 1, true) then error(got.err, 0) end
    redis.call('DEL', key)
    mended = mended + 1
    got = redis.call(command, key, ...)
  end
  return got
end

local names, asks = {'!' .. me}, {}
for i = 1, count do
  local a = {un('>Bc0dddddddd', arg, at)}
  local owed, give, want, rate, more, least, R, B = a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9]
  if not (R > 0 and R < 1e15 and B ~= 0 and B > -1e15 and B < 1e15 and owed >= 0 and owed < 1e15 and
          give >= 0 and give < 1e15 and want >= 0 and want < 1e15 and rate >= 0 and
          rate < 1e15 and more > -1e15 and more < 1e15 and least < 1e7) then
    return redis.error_reply('SLUICE ask')
  end
  names[i + 1], asks[i], at = a[1], a, a[10]
end
local old = safely('HMGET', KEYS[1], unpack(names))

-- A call that comes twice, or after a later one: it is lost to its sender.
local last = 0
if old[1] then
  if #old[1] == 8 then last = un('>d', old[1]) end
  if #old[1] ~= 8 or not (last >= 0 and last < 9e15) then last, mended = 0, mended + 1 end
end
if id <= last then return pk('>BddHHH', 1, id, now, 0, min(mended, 65535), 0) end

if beat == 1 then
  safely('ZADD', KEYS[2], now, me)
  alive = redis.call('ZCOUNT', KEYS[2], now - 3000000, '+inf')
  local gone = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - 3600000000, 'LIMIT', 0, 100)
  for i = 1, #gone do
    redis.call('ZREM', KEYS[2], gone[i])
    redis.call('HDEL', KEYS[1], '!' .. gone[i])
  end
end

-- What counts of the last window, and how it is kept as of now.
local function slide(present, before, begin, length)
  local ended = floor((now - begin) / length)
  if ended > 0 then present, before, begin = 0, ended == 1 and present or 0, begin + ended * length end
  return present + before * (1 - (now - begin) / length), present, before, begin
end

-- Both return what is granted, what is left, and what is to be kept.
local function bucket(tat, owed, give, want, least, R, B)
  local us = 1000000 / R
  local full = B * us
  tat = max(tat, now)
  if least < 0 then
    tat = tat + ceil(owed * us)
  else
    -- After a time without us: what was lent then is paid as far as the bucket goes, and a bucket
    -- that was lost is not fuller than it was.
    tat = max(tat, min(tat + ceil(owed * us), now + ceil(full)), now + ceil(least * 1000000))
  end
  tat = min(max(tat - floor(give * us), now), now + 39000000000000)
  local g = floor(max(0, min(want, (full - (tat - now)) / us)))
  tat = tat + ceil(g * us)
  return g, (full - (tat - now)) / us, tat
end

local function window(present, before, begin, owed, give, want, least, R, B)
  local count, room
  count, present, before, begin = slide(present, before, begin, B / R * 1000000)
  if least >= 0 then owed = max(min(owed, B - count), least * R - count, 0) end
  present = present + owed - give
  if present < 0 then before, present = max(before + present, 0), 0 end
  present = min(present, 9e14)
  room = B - slide(present, before, begin, B / R * 1000000)
  local g = floor(max(0, min(want, room)))
  return g, room - g, present + g, before, begin
end

local new, empty, out = {names[1], pk('>d', id)}, {}, {}
for i = 1, count do
  local a, v, D, seen, good = asks[i], old[i + 1], 0, now, true
  local owed, give, want, rate, more, least, R, B = a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9]
  local tat, present, before, begin, g, room, field
  if v and #v == 40 then
    present, before, begin, D, seen = un('>ddddd', v)
    good = present >= 0 and present < 1e15 and before >= 0 and before < 1e15 and begin >= 0 and
           begin < 9e15
  elseif v then
    good = #v == 24
    if good then
      tat, D, seen = un('>ddd', v)
      -- No debt is as long as this; a shorter one that nobody ever made ends by itself.
      good = tat >= 0 and tat < now + 4e13
    end
  end
  if not (good and D >= 0 and D < 1e15 and seen >= 0 and seen < 9e15) then
    tat, begin, D, seen, mended = nil, nil, 0, now, mended + 1
  end
  -- A clock that was set back: what is missing is as much as it was.
  tat = tat and tat - max(seen - now, 0)
  begin = begin and min(begin - max(seen - now, 0), now)
  D = max(D * exp(min(0, (seen - now) / 2000000)) + more, rate, 0)
  if B > 0 then
    if begin then tat = now + ceil(slide(present, before, begin, B / R * 1000000) * 1000000 / R) end
    g, room, tat = bucket(tat or now, owed, give, want, least, R, B)
    field = (tat > now or D * 10000 > R) and pk('>ddd', tat, D, now)
  else
    if not begin then present, before, begin = max((tat or now) - now, 0) * R / 1000000, 0, now end
    g, room, present, before, begin =
      window(present, before, begin, owed, give, want, least, R, -B)
    field = (present + before > 0 or D * 10000 > R) and
            pk('>ddddd', present, before, begin, D, now)
  end
  out[i] = pk('>ddd', g, room, D)
  -- A full bucket that nobody asks for is the same as none.
  if field then
    new[#new + 1] = names[i + 1]
    new[#new + 1] = field
  else
    empty[#empty + 1] = names[i + 1]
  end
end
redis.call('HSET', KEYS[1], unpack(new))
if #empty > 0 then redis.call('HDEL', KEYS[1], unpack(empty)) end
if beat == 1 then
  redis.call('PEXPIRE', KEYS[1], 604800000)
  redis.call('PEXPIRE', KEYS[2], 604800000)
end
return pk('>BddHHH', 0, id, now, min(alive, 65535), min(mended, 65535), count) .. table.concat(out)
