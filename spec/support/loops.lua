--- What every loop over the datagrams of a socket promises. Here `loop(sock, take, config)` calls take(data) for each
--- datagram until the socket is closed.

local fiber = require "ip".fiber
local memory = require "spec.support.memory"
local support = require "spec.support"

local loops = {}

--- The most datagrams of 40 that a loop takes in a row, before another fiber has its turn.
function loops.longest_row(loop, config)
  local sock, client = support.receiver()
  for _ = 1, 40 do client:send("x") end
  local row, longest, seen = 0, 0, 0
  local other = fiber.spawn(function()
    while seen < 40 do
      row = 0
      fiber.yield()
    end
  end)
  loop(sock, function()
    seen = seen + 1
    row = row + 1
    longest = math.max(longest, row)
    if seen == 40 then sock:close() end
  end, config)
  other:join()
  client:close()
  return longest
end

--- The bytes that a loop leaves for 40 datagrams. There are 20 before: by then it has given way, and all stacks have
--- grown.
function loops.garbage(loop, config)
  local sock, client = support.receiver()
  local seen, before, after = 0, nil, nil
  for _ = 1, 60 do client:send("x") end
  local stopped <close> = memory.without_collector() -- luacheck: ignore stopped
  loop(sock, function()
    seen = seen + 1
    if seen == 20 then before = collectgarbage("count") end
    if seen == 60 then
      after = collectgarbage("count")
      sock:close()
    end
  end, config)
  client:close()
  return (after - before) * 1024
end

--- The bytes that a loop leaves for 39 datagrams, each of which it has to wait for; likewise 20 come before.
function loops.garbage_of_waits(loop, config)
  local sock, client = support.receiver()
  local seen, before = 0, nil
  local looping = support.waiting(loop, sock, function() seen = seen + 1 end, config)
  local stopped <close> = memory.without_collector() -- luacheck: ignore stopped
  for i = 1, 59 do
    client:send("x")
    while seen < i do fiber.yield() end
    if i == 20 then before = collectgarbage("count") end
  end
  local after = collectgarbage("count")
  sock:close()
  looping:join()
  client:close()
  return (after - before) * 1024
end

return loops
