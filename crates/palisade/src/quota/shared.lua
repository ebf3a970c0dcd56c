-- Takes one token from each bucket of KEYS in turn, until one is empty (generic cell rate algorithm).
-- ARGV holds two numbers per bucket: microseconds per token, and the size of the bucket in tokens.
-- A key holds the time at which its bucket is full again. The clock is this server's, since the
-- clocks of replicas may differ.
-- Returns two numbers per bucket tried: remaining tokens, and microseconds until the next token if
-- the bucket was empty, else 0.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local result = {}
for i, key in ipairs(KEYS) do
    local interval, size = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    -- A value that is not a number was not written by this script: the bucket counts as full.
    local full_at = tonumber(redis.call('GET', key) or now) or now
    -- Never in the past, and never later than for an empty bucket, in case the clock was set back.
    full_at = math.min(math.max(full_at, now), now + interval * size)
    local left = now + interval * (size - 1) - full_at
    if left < 0 then
        table.insert(result, 0)
        table.insert(result, -left)
        break
    end
    full_at = full_at + interval
    redis.call('SET', key, string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
    table.insert(result, math.floor(left / interval))
    table.insert(result, 0)
end
return result
