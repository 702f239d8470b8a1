-- Large numbers: fibers that sleep, peers of one socket, sockets with a fiber each. Counts alone are judged. Programs
-- run in processes of their own, since what they needed stays in the library's pools.

local platform = require "spec.support.platform"
local support = require "spec.support"

local it_linux, is_watched = platform.it_linux, platform.is_watched

-- What the programs begin with. resident() is the process's memory in bytes, or nil where the system does not tell.
local PROLOGUE = [[
  local ip = require "ip"
  local fiber = ip.fiber
  local count = tonumber(arg[1])
  local function page_size()
    local pipe <close> = io.popen("getconf PAGESIZE")
    return pipe:read("n")
  end
  local page = page_size()
  local function resident()
    collectgarbage()
    collectgarbage()
    local file <close> = io.open("/proc/self/statm")
    return file and tonumber(file:read("a"):match("^%d+ (%d+)")) * page
  end
]]

-- Runs a program with `count` as its argument; returns the numbers that it prints, by name.
local function run(program, count, before)
  local output, code = support.run_program(PROLOGUE .. program, tostring(count), before)
  assert.equal(0, code, output)
  local values = {}
  for name, value in output:gmatch("(%w+)=(%-?%d+)\n") do values[name] = tonumber(value) end
  assert.is_not_nil(next(values), output)
  return values
end

-- A tool that watches a program has memory of its own.
local function assert_bytes(most, bytes, what)
  if bytes == nil or is_watched then return end
  assert.is_true(bytes <= most, ("%s: %d bytes, at most %d are allowed"):format(what, bytes, most))
end

describe("very many fibers that sleep", function()
  -- When a fiber begins to sleep is known to lie between two readings of the clock: its own, and that of the next one.
  -- So its deadline lies between two times, and two fibers whose times do not overlap have a certain order.
  local sleepers = [[
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
      for _ = 1, 2 do _, _, asleep_again = round() end
      print(("each=%d\ngrowth=%d"):format((asleep - before) // count, (asleep_again - asleep) // count))
    end
  ]]

  it("all wake, in the order of their deadlines and never early, and need bounded memory", function()
    local count = is_watched and 10000 or 100000
    local values = run(sleepers, count)
    assert.equal(count, values.woken)
    assert.equal(0, values.early)
    assert.equal(0, values.late)
    assert_bytes(2048, values.each, "a fiber that sleeps")
    assert_bytes(200, values.growth, "two more rounds, for each fiber")
  end)
end)

describe("one socket with ten thousand peers", function()
  -- The peers are as many source addresses of one socket.
  local peers = [[
    local function address_of(i) return ip.address.new(("127.1.%d.%d"):format(i // 250, i % 250 + 1)) end
    local server = ip.udp.bind("127.0.0.1", 0)
    local client = ip.udp.bind("0.0.0.0", 0)
    local buf, reply = ip.byte_span.new(16), ip.byte_span.new(16)
    local seen, known, wrong = {}, 0, 0
    local info = { address = server.local_address, port = server.local_port }

    local function serve_one()
      local n, address, port = server:receive_from(buf:resize(16))
      local key = ip.endpoint_key(address, port)
      if not seen[key] then known = known + 1 end
      seen[key] = (seen[key] or 0) + 1
      local length = buf:resize(n):pack(1, "I4", seen[key]) - 1
      server:send_to(buf:resize(length), address, port)
    end

    -- Peer i sends in each round whose number is no multiple of i % 3 + 2.
    local function sends(i, number) return number % (i % 3 + 2) ~= 0 end

    local function round(number)
      for i = 1, count do
        if sends(i, number) then
          info.source = address_of(i)
          client:send_message("0000", info)
          serve_one()
          local n = client:receive(reply:resize(16))
          local expected = 0
          for earlier = 1, number do
            if sends(i, earlier) then expected = expected + 1 end
          end
          if reply:resize(n):unpack("I4") ~= expected then wrong = wrong + 1 end
        end
      end
      collectgarbage()
      collectgarbage()
      return math.tointeger(collectgarbage("count") * 1024)
    end

    fiber.run(function()
      local first_bytes, first_resident = round(1), resident()
      local last_bytes
      for number = 2, 4 do last_bytes = round(number) end
      print(("known=%d\nwrong=%d\ngarbage=%d"):format(known, wrong, last_bytes - first_bytes))
      if first_resident then print(("growth=%d"):format(resident() - first_resident)) end
    end)
  ]]

  it_linux("has the right counter for each, and needs no more memory after the first round", function()
    local values = run(peers, 10000)
    assert.equal(10000, values.known)
    assert.equal(0, values.wrong)
    assert.is_true(values.garbage <= 1024, ("grown by %d bytes"):format(values.garbage))
    assert_bytes(1 << 18, values.growth, "three more rounds")
  end)
end)

describe("ten thousand sockets with a fiber each", function()
  local more_descriptors = "ulimit -n 10200"

  local sockets = [[
    -- where there are many loopback addresses, one for this program: its ports suffice
    local host = ("127.%d.%d.%d"):format(math.random(1, 254), math.random(1, 254), math.random(1, 254))
    if not pcall(ip.udp.bind, host, 0) then host = "127.0.0.1" end
    local buf = ip.byte_span.new(16)
    local index_of, ports, failed = {}, {}, 0
    fiber.on_error(function() failed = failed + 1 end)

    local function serve(sock, index)
      local served = 0
      while true do
        local _, address, port = sock:receive_from(buf)
        served = served + 1
        sock:send_to(string.pack("I4 I4", index, served), address, port)
      end
    end

    for i = 1, count do
      local sock = ip.udp.bind(host, 0)
      ports[i], index_of[sock.local_port] = sock.local_port, i
      fiber.spawn(serve, sock, i):detach()
    end

    local client = ip.udp.bind(host, 0)
    local reply = ip.byte_span.new(16)

    -- Asks all, a hundred at a time; gives the number of right answers.
    local function round(number)
      local right, answered = 0, {}
      for first = 1, count, 100 do
        local last = math.min(first + 99, count)
        for i = first, last do client:send_to("x", host, ports[i]) end
        for _ = first, last do
          local _, _, port = client:receive_from(reply)
          local index, served = reply:unpack("I4 I4")
          if index == index_of[port] and served == number and not answered[index] then right = right + 1 end
          answered[index] = true
        end
      end
      return right
    end

    fiber.run(function()
      local right = round(1)
      local first, last = resident(), nil
      for number = 2, 4 do
        right = right + round(number)
        last = resident() -- which collects the strings of this round
      end
      print(("right=%d\nfailed=%d"):format(right, failed))
      if first then print(("growth=%d"):format(last - first)) end
    end)
  ]]

  it("all are served, again and again, and need no more memory after the first round", function()
    if not os.execute("(" .. more_descriptors .. ") 2>/dev/null") then
      return pending("the system permits no 10000 descriptors")
    end
    local values = run(sockets, 10000, more_descriptors)
    assert.equal(40000, values.right)
    assert.equal(0, values.failed)
    assert_bytes(1 << 20, values.growth, "three more rounds")
  end)
end)
