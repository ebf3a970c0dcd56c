-- Takes one call out of each bucket of KEYS in turn, until one has none left (generic cell rate algorithm).
-- ARGV has two numbers for each: the microseconds after which there is a call more, and the calls of a full bucket.
-- A key holds the time at which its bucket is full again, by the clock of this server: those of the callers may differ.
-- Answers two numbers for each bucket that was asked: calls left, and microseconds until there is one, if there was none.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local answer = {}
for i, key in ipairs(KEYS) do
    local interval, calls = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    -- What is no number was not written here, and is no bucket.
    local full = tonumber(redis.call('GET', key) or now) or now
    -- Never in the past; nor later than an empty bucket takes, should the clock have been put back.
    full = math.min(math.max(full, now), now + interval * calls)
    local left = now + interval * (calls - 1) - full
    if left < 0 then
        table.insert(answer, 0)
        table.insert(answer, -left)
        break
    end
    full = full + interval
    redis.call('SET', key, string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
    table.insert(answer, math.floor(left / interval))
    table.insert(answer, 0)
end
return answer
