-- Lets arg[1] fibers sleep, each for another time; prints how many woke, how many of them early and how many
-- behind a later one, and what each took in bytes.
--
-- When a fiber begins to sleep is known to lie between two readings of the clock: its own, and that of the
-- next one. So its deadline lies between two times, and two fibers whose times do not overlap have a certain
-- order.

local ip = require "ip"
local resident = require "spec.support.resident"

local fiber = ip.fiber
local count = tonumber(arg[1])
local lower, upper, woken = {}, {}, {}
for i = 1, count do lower[i], upper[i], woken[i] = 0.0, 0.0, 0 end

local function round()
  collectgarbage() -- or the fibers of the round before would still be there
  local number, early, asleep = 0, 0, nil
  for i = 1, count do
    fiber.spawn(function()
      local seconds = 0.2 + i * 7919 % count / count / 2
      local now = fiber.now()
      lower[i], upper[i] = now + seconds, seconds
      if i > 1 then upper[i - 1] = upper[i - 1] + now end
      fiber.sleep(seconds)
      if fiber.now() < lower[i] then early = early + 1 end
      number = number + 1
      woken[number] = i
    end)
  end
  fiber.spawn(function()
    upper[count] = upper[count] + fiber.now()
    asleep = resident()
  end)
  fiber.run()
  return number, early, asleep
end

local before = resident()
local number, early, asleep = round()
local latest, late = 0, 0
for _, i in ipairs(woken) do
  if upper[i] + 0.001 < latest then late = late + 1 end -- a timer counts in whole milliseconds
  latest = math.max(latest, lower[i])
end
print(("woken=%d\nearly=%d\nlate=%d"):format(number, early, late))
if before then
  local asleep_again
  for _ = 1, 2 do asleep_again = select(3, round()) end
  print(("each=%d\ngrowth=%d"):format((asleep - before) // count, (asleep_again - asleep) // count))
end
