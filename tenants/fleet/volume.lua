-- What instances have used of their tenants' volumes in one period, and what all of them have: one
-- hash a period, named by its key. wire.h has the layout of argument and reply.
--
--   t<field>             the sum over the fleet: a double
--   c<instance><field>   of it, what this instance has said so far, and in which call: two doubles
--
-- An instance says its own sum, never a difference, so a call that comes twice, or whose answer is
-- lost, counts once. It also says how much of it has been answered and what the fleet's sum was
-- then: a Redis that has lost its data takes up from there.
--
-- What lies in our keys may be anything. A field that is not ours counts as none, and the reply
-- says how many there were.
local un, pk, max, arg = struct.unpack, struct.pack, math.max, ARGV[1]
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local version, me, id, keep, count, at = un('>Bc16ddH', arg)
if version ~= 1 then return redis.error_reply('SLUICE version ' .. version) end
if not (keep >= 1 and keep < 1e10) then return redis.error_reply('SLUICE keep') end
local mended = 0

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

local names, asks = {}, {}
for i = 1, count do
  local field, used, heard, sum
  field, used, heard, sum, at = un('>Bc0ddd', arg, at)
  if not (used >= 0 and used < 1e18 and heard >= 0 and heard <= used and
          sum >= 0 and sum < 1e18) then
    return redis.error_reply('SLUICE ask')
  end
  asks[i] = {used, heard, sum}
  names[2 * i - 1], names[2 * i] = 't' .. field, 'c' .. me .. field
end
if count == 0 then return pk('>BdHH', 0, now, 0, 0) end
local old, new, out = safely('HMGET', KEYS[1], unpack(names)), {}, {}
for i = 1, count do
  local used, heard, sum = asks[i][1], asks[i][2], asks[i][3]
  local all, said, seen = 0, 0, 0
  local v, c = old[2 * i - 1], old[2 * i]
  if v then
    if #v == 8 then all = un('>d', v) end
    if #v ~= 8 or not (all >= 0 and all < 1e18) then all, mended = 0, mended + 1 end
  end
  if c then
    if #c == 16 then said, seen = un('>dd', c) end
    if #c ~= 16 or not (said >= 0 and said < 1e18 and seen >= 0 and seen < 9e15) or
       (seen < id and said > used) then
      said, seen, mended = 0, 0, mended + 1
    end
  end
  all = max(all, sum)
  if id > seen then
    all = all + max(used - max(said, heard), 0)
    new[#new + 1] = names[2 * i - 1]
    new[#new + 1] = pk('>d', all)
    new[#new + 1] = names[2 * i]
    new[#new + 1] = pk('>dd', used, id)
  end
  out[i] = pk('>d', all)
end
if #new > 0 then redis.call('HSET', KEYS[1], unpack(new)) end
redis.call('EXPIRE', KEYS[1], keep)
return pk('>BdHH', 0, now, math.min(mended, 65535), count) .. table.concat(out)
