"""What the Redis store does on the server: each script is one step that nobody sees half of.

A user has three keys, in this order:

- a hash: `revision`; `arrived`, events that ever came; `newest` and `newest_tie`, timestamp and tie of the last event;
  `dropped`, timestamp of the newest event that was dropped;
- a set: the ids of the events that are kept;
- a sorted set: score is the timestamp, member the tie in 16 hexadecimal digits and the number of arrival in 16 decimal
  ones (which order equal scores), then JSON of `[event id, packed item, domain]`.
"""

APPEND = """
-- KEYS: three for each user. ARGV: revision for users that change, events that are kept of a user, most that there may
-- be; then for each event: number of the user (1, 2, ...), timestamp, tie, event id, JSON. Returns 1 or 0 for each.
local revision, keep, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local users, new = {}, {}
for user = 1, #KEYS / 3 do
    local of = {hash = KEYS[3 * user - 2], ids = KEYS[3 * user - 1], events = KEYS[3 * user]}
    local found = redis.call('HMGET', of.hash, 'revision', 'arrived', 'newest', 'newest_tie', 'dropped')
    of.revision = found[1] or revision
    of.arrived, of.newest_text, of.newest_tie = tonumber(found[2] or '0'), found[3], found[4] or ''
    of.dropped_text = found[5]
    of.newest = of.newest_text and tonumber(of.newest_text) or -math.huge
    of.dropped = of.dropped_text and tonumber(of.dropped_text) or -math.huge
    redis.call('SCARD', of.ids)  -- whatever is wrong with a key shows here, before anything is written
    redis.call('ZCARD', of.events)
    users[user] = of
end
for place = 4, #ARGV, 5 do
    local of = users[tonumber(ARGV[place])]
    local timestamp, tie = tonumber(ARGV[place + 1]), ARGV[place + 2]
    local is_new = 0
    if timestamp >= of.dropped then
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
            redis.call('SREM', of.ids, cjson.decode(string.sub(old[place], 33))[1])
        end
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
-- KEYS: of a user. Returns how many events there were.
local count = redis.call('ZCARD', KEYS[3])
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return count
"""
