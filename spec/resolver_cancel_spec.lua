-- What is promised about look-ups that are given up, get no answer, or are pending when the program ends.
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local network = require "spec.support.network"
local process = require "spec.support.process"
local programs = require "spec.support.resolver_programs"

local on_main = support.on_main
local assert_contains = assertions.assert_contains
local PRELUDE, SILENT = programs.PRELUDE, programs.SILENT
local it_network, prints = programs.it_network, programs.prints

-- A look-up that waits for a thread, of addresses or of names.
local LOOK_UP = [[
local function look_up(i)
  local co = coroutine.create(i % 2 == 1 and udp.get_address_v4_info or udp.get_name_info)
  coroutine.resume(co, i % 2 == 1 and "localhost" or "127.0.0.1", 1)
  return co
end
]]

-- A look-up that is given up goes on in its thread, which has descriptors open: such programs have a process
-- of their own.
local function cancels(expected, program)
  return function() assertions.assert_prints(expected, PRELUDE .. LOOK_UP .. program) end
end

describe("a look-up that is cancelled", function()
  it("by coroutine.close runs the coroutine's __close variables, and nothing else of it", cancels(
    "closed\ntrue\n0\n::1\n", [[
local co = coroutine.create(function()
  local guard <close> = setmetatable({}, { __close = function() print("closed") end })
  udp.get_address_info("localhost", 1)
  print("never reached")
end)
coroutine.resume(co)
print(coroutine.close(co))
print(pending())
show(udp.get_address_info("::1", 1))
]]))

  it("by a resume of others raises in the coroutine, and gives no forged result", cancels(
    "resumed while waiting in get_address_v4_info\nresumed while waiting in get_name_info\n0\n::1\n", [[
for i = 1, 2 do
  local co = look_up(i)
  local ok, message = coroutine.resume(co, { { address = "forged" } })
  print(not ok and message)
end
print(pending())
show(udp.get_address_info("::1", 1))
]]))

  it("many times leaves nothing", cancels("0\n::1\n", [[
for i = 1, 500 do
  local co = look_up(i)
  if i % 3 == 0 then fiber.sleep(0) end
  coroutine.close(co)
end
print(pending())
show(udp.get_address_info("::1", 1))
]]))

  it("when its result is there already leaves nothing of that either", cancels("1\n0\n", [[
local waiting, ended = {}, 0
for i = 1, 20 do
  waiting[i] = coroutine.create(function()
    if i % 2 == 0 then udp.get_name_info("127.0.0.1", 1) else udp.get_address_v4_info("localhost", 1) end
    ended = ended + 1
    for j = 1, 20 do
      if j ~= i then coroutine.close(waiting[j]) end
    end
  end)
end
for _, co in ipairs(waiting) do coroutine.resume(co) end
local spin = fiber.now()
repeat until fiber.now() - spin > 0.05 -- most are finished when the loop looks
fiber.run()
print(ended)
print(pending())
]]))

  it("by an interruption or not, the fiber learns of the interruption", cancels("true INTERRUPTED\n", [[
local fine, last = true, nil
for _ = 1, 200 do
  local one = fiber.spawn(function()
    local ok, result = pcall(udp.get_address_info, "localhost", 1)
    -- which of the two came first is the thread pool's business
    fine = fine and (ok and result[1].port == 1 or result == ip.error.INTERRUPTED)
    last = select(2, pcall(fiber.yield))
  end)
  fiber.yield()
  one:interrupt()
  one:join()
end
print(tostring(fine) .. " " .. last.name)
]]))
end)

describe("a look-up that gets no answer", function()
  after_each(process.stop_all)

  it_network("ends by with_timeout, when the time is over and not when the resolver gives up", prints(
    "system ETIMEDOUT with_timeout\nsystem ETIMEDOUT with_timeout\n", SILENT .. [[
fail(fiber.with_timeout, 0.02, udp.get_address_info, "slow.test", 1)
fail(fiber.with_timeout, 0.02, udp.get_name_info, "192.0.2.1", 1)
]]))

  it_network("is ended by fiber:interrupt", prints(
    "fiber INTERRUPTED get_address_info\nfiber INTERRUPTED get_name_info\n", SILENT .. [[
for _, case in ipairs {
  { "get_address_info", "slow.test" },
  { "get_name_info", "192.0.2.1", "1.2.0.192.in-addr.arpa" },
} do
  local one = fiber.spawn(fail, udp[case[1] ], case[2], 1)
  wait_until_asked(case[3])
  one:interrupt()
  one:join()
end
]]))

  it_network("is cancelled by coroutine.close, of a fiber and of any coroutine", prints(
    "closed\ntrue\nclosed\ntrue\n", SILENT .. [[
local function ask()
  local guard <close> = setmetatable({}, { __close = function() print("closed") end })
  udp.get_address_info("slow.test", 1)
end
local co = coroutine.create(ask)
coroutine.resume(co)
wait_until_asked()
print(coroutine.close(co))
local thread
local one = fiber.spawn(function()
  thread = coroutine.running()
  ask()
end)
one:detach()
fiber.yield()
coroutine.close(thread)
fiber.yield()
print(pending() == 1) -- the name server's receive
]]))

  it_network("does not stop others from being asked for, more than there are threads", prints(
    "all timed out\n1\n127.0.0.1\ntrue\n", SILENT .. [[
local fibers = {}
for i = 1, 50 do
  fibers[i] = fiber.spawn(pcall, fiber.with_timeout, 0.05, udp.get_address_info, "slow.test", 1)
end
local all = true
for _, each in ipairs(fibers) do
  local ok, err = each:join()
  all = all and not ok and err == ip.error.ETIMEDOUT
end
print(all and "all timed out")
print(pending())
show(udp.get_address_v4_info("localhost", 1)) -- waits for a thread; those that queued have been taken back
-- All of them, each for a v4 and a v6 address, would be a hundred questions.
print(asked["slow.test"] < 50)
]]))

  it_network("is no deadlock where nothing else can end the wait", prints(
    "resolver EAI_AGAIN get_address_info\n", [[
local ip = require "ip"
local ok, err = pcall(ip.udp.get_address_info, "slow.test", 1)
print(err.category .. " " .. err.name .. " " .. err.operation)
]]))

  it_network("cancelled, ends nobody else's wait: what remains is a deadlock", prints(
    "system EDEADLK sleep\n", SILENT .. [[
local co = coroutine.create(udp.get_address_info)
coroutine.resume(co, "slow.test", 1)
wait_until_asked()
coroutine.close(co)
server:close()
fail(fiber.sleep, math.huge)
]]))
end)

describe("a state that ends with look-ups pending", function()
  after_each(process.stop_all)

  local endings = {
    ["by the end of the main chunk"] = "",
    ["by os.exit(0, true) on the main thread"] = "os.exit(0, true)",
    ["by os.exit(0, true) in a fiber"] = "fiber.run(function() os.exit(0, true) end)",
    ["by os.exit(0)"] = "os.exit(0)",
  }
  for how, ending in pairs(endings) do
    it_network(how .. " ends without a crash, and without a leak", prints("asked\n", SILENT .. [[
for _ = 1, 8 do
  fiber.spawn(udp.get_address_info, "slow.test", 1)
  fiber.spawn(udp.get_name_info, "192.0.2.1", 1)
end
local foreign = coroutine.create(udp.get_address_info)
coroutine.resume(foreign, "slow.test", 1)
local abandoned = coroutine.create(udp.get_address_info)
coroutine.resume(abandoned, "slow.test", 1)
coroutine.close(abandoned)
local answered = coroutine.create(udp.get_address_info)
coroutine.resume(answered, "localhost", 1)
wait_until_asked()
io.write("asked\n")
io.flush()
]] .. ending))
  end

  it_network("frees a result that has come and that nobody has read", prints("", PRELUDE .. [[
local co = coroutine.create(udp.get_address_info)
coroutine.resume(co, "localhost", 1)
local other = coroutine.create(udp.get_name_info)
coroutine.resume(other, "127.0.0.1", 1)
]]))

  it_network("survives look-ups that finalizers begin, close and give up while it ends", prints(
    "", PRELUDE .. [[
kept = {}
for i = 1, 20 do
  local pending = coroutine.create(udp.get_address_info)
  coroutine.resume(pending, "localhost", i)
  kept[i] = setmetatable({}, { __gc = function()
    local co = coroutine.create(udp.get_address_info)
    coroutine.resume(co, "localhost", i)
    if i % 2 == 0 then coroutine.close(co) end
    if i % 3 == 0 then coroutine.close(pending) end
    kept[co] = true
  end })
end
]]))

  it_network("lets objects that are older than the library close a pending look-up afterwards", prints(
    "closed\n", [[
local co
older = setmetatable({}, { __gc = function()
  coroutine.close(co)
  print("closed")
end })
local ip = require "ip"
co = coroutine.create(ip.udp.get_address_info)
coroutine.resume(co, "localhost", 1)
]]))

  it_network("on Ctrl-C raises in the call that waits", on_main(function()
    local started = network.start(SILENT .. [[
fiber.spawn(function()
  wait_until_asked()
  io.write("waiting\n")
  io.flush()
end)
udp.get_address_info("slow.test", 1)
]], { resolv = "nameserver 127.0.0.1\noptions timeout:5 attempts:1\n" })
    local ok, err = pcall(function()
      started:wait_for("waiting\n")
      started:signal("INT")
      started:wait_for("interrupted!")
      assert.equal(1, started:wait())
      assert_contains(started:errors(), "stack traceback")
    end)
    network.stop(started)
    assert.is_true(ok, tostring(err))
  end, 60))
end)
