"""Lua scripts of the Redis store: the server runs each as one atomic step.

A user has four keys, in this order:

- a hash: `revision`; `arrived`, events that ever came; `newest` and `newest_tie`, timestamp and tie of the last event;
  `dropped`, timestamp of the newest event that was dropped;
- a set: the ids of the events that are kept;
- a sorted set: score is the timestamp, member the tie in 16 hexadecimal digits and the number of arrival in 16 decimal
  ones (which order equal scores), then JSON of `[event id, packed item, domain]`, and features where it tells some;
- a sorted set: hashes of the ids of events that were dropped, the newest ones; score is the number of arrival.
"""

APPEND = """
-- KEYS: four for each user. ARGV: revision for users that change, events that are kept of a user, most that there may
-- be; for each user `newest` as it was read, or `any`; then for each event: number of the user (1, 2, ...), timestamp,
-- tie, event id, JSON. Returns 1 or 0 for each event; nothing, and keeps nothing, if `newest` of a user is another one.
local revision, keep, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local users, new, count = {}, {}, #KEYS / 4
local function hashed(id)
    return string.sub(redis.sha1hex(id), 1, 16)
end
for user = 1, count do
    local of = {hash = KEYS[4 * user - 3], ids = KEYS[4 * user - 2], events = KEYS[4 * user - 1], old = KEYS[4 * user]}
    local found = redis.call('HMGET', of.hash, 'revision', 'arrived', 'newest', 'newest_tie', 'dropped')
    of.revision = found[1] or revision
    of.arrived, of.newest_text, of.newest_tie = tonumber(found[2] or '0'), found[3], found[4] or ''
    of.dropped_text = found[5]
    if ARGV[3 + user] ~= 'any' and ARGV[3 + user] ~= (of.newest_text or '') then
        return {}
    end
    of.newest = of.newest_text and tonumber(of.newest_text) or -math.huge
    of.dropped = of.dropped_text and tonumber(of.dropped_text) or -math.huge
    redis.call('SCARD', of.ids)  -- whatever is wrong with a key shows here, before anything is written
    redis.call('ZCARD', of.events)
    redis.call('ZCARD', of.old)
    users[user] = of
end
for place = 4 + count, #ARGV, 5 do
    local of = users[tonumber(ARGV[place])]
    local timestamp, tie = tonumber(ARGV[place + 1]), ARGV[place + 2]
    local is_new = 0
    local was_dropped = of.dropped_text and redis.call('ZSCORE', of.old, hashed(ARGV[place + 3]))
    if timestamp >= of.dropped and not was_dropped then
        is_new = redis.call('SADD', of.ids, ARGV[place + 3])
    end
    if is_new == 1 then
        local member = tie .. string.format('%016d', of.arrived) .. ARGV[place + 4]
        redis.call('ZADD', of.events, ARGV[place + 1], member)
        of.arrived = of.arrived + 1
        if timestamp < of.newest or (timestamp == of.newest and tie < of.newest_tie) then
            of.revision = revision
        else
            of.newest, of.newest_text, of.newest_tie = timestamp, ARGV[place + 1], tie
        end
    end
    new[#new + 1] = is_new
end
for _, of in ipairs(users) do
    local excess = redis.call('ZCARD', of.events) - keep
    if excess + keep > most then
        local old = redis.call('ZRANGE', of.events, 0, excess - 1, 'WITHSCORES')
        for place = 1, #old, 2 do
            local id = cjson.decode(string.sub(old[place], 33))[1]
            redis.call('SREM', of.ids, id)
            redis.call('ZADD', of.old, tonumber(string.sub(old[place], 17, 32)), hashed(id))
        end
        redis.call('ZREMRANGEBYRANK', of.old, 0, -keep - 1)
        redis.call('ZREMRANGEBYRANK', of.events, 0, excess - 1)
        of.dropped_text, of.revision = old[#old], revision
    end
    if of.newest_text then
        redis.call('HSET', of.hash, 'revision', of.revision, 'arrived', of.arrived)
        redis.call('HSET', of.hash, 'newest', of.newest_text, 'newest_tie', of.newest_tie)
    end
    if of.dropped_text then
        redis.call('HSET', of.hash, 'dropped', of.dropped_text)
    end
end
return new
"""

READ = """
-- KEYS: of a user. ARGV: revision, how many events to leave out if it is still the user's.
local revision = redis.call('HGET', KEYS[1], 'revision')
if not revision then
    return {'', 0, {}}
end
local start, count = tonumber(ARGV[2]), redis.call('ZCARD', KEYS[3])
if revision ~= ARGV[1] or start < 0 or start > count then
    start = 0
end
return {revision, start, redis.call('ZRANGE', KEYS[3], start, -1, 'WITHSCORES')}
"""

DELETE = """
-- KEYS: of a user, then the counter of erasures, the pending ones, and the user's opt-outs. ARGV: name of this erasure,
-- time. Returns how many events there were.
local count = redis.call('ZCARD', KEYS[3])
if redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[7]) > 0 then
    redis.call('INCR', KEYS[5])
    redis.call('HSET', KEYS[6], ARGV[1], ARGV[2])
end
return count
"""

RECORD = """
-- KEYS: one. ARGV: its new value. Deleting first, which a server whose memory is full allows.
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
"""
