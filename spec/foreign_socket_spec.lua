-- What waiting on a socket promises where somebody else has a hand in it: what others have asked the system for, or
-- have shut down, wakes nobody for ever. The programs tell the processor time that a wait takes; one that polls in a
-- circle takes about as long as it waits.
local process = require "spec.support.process"
local namespace = require "spec.support.namespace"

local build = os.getenv("LUA_IP_BUILD")
local is_linux = io.open("/proc/self/fdinfo/0") ~= nil
local it_built = build and is_linux and it or function(name) pending(name .. " (needs LUA_IP_BUILD)") end
local it_blocked = build and is_linux and namespace.can_be_slow() and it or pending

local PRELUDE = [[
local ip = require "ip"
local fd, control = tonumber(arg[1]), tonumber(arg[2])
local s = ip.udp.socket.new()
s:assign("v4", fd)
local sink = ip.udp.bind("127.0.0.1", 0)

-- Prints how fn(...) ended, and "busy" where it took processor time instead of waiting.
local function watch(fn, ...)
  local cpu = os.clock()
  local ok, err = pcall(fn, ...)
  print(ok and "ok" or err.name, os.clock() - cpu > 0.1 and "busy" or "idle")
end

local function shut_twin(side)
  local own <close> = ip.udp.bind("127.0.0.1", 0)
  own:send_to(side, "127.0.0.1", control)
end
]]

local function output_of(words)
  local running <close> = process.start(words)
  running:wait(60)
  return running:output() .. running:errors()
end

local function with_program(source, fn)
  local path = os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  file:write(PRELUDE, source)
  file:close()
  local ok, result = pcall(fn, path)
  os.remove(path)
  return ok and result or error(result, 0)
end

local function run(kind, source)
  return with_program(source, function(path)
    local words = { build .. "/foreign_socket", kind }
    return output_of(table.move(process.lua(path), 1, 2, #words + 1, words))
  end)
end

local function run_blocked(kind, source)
  local network <close> = assert(namespace.slow())
  network:run("tc qdisc change dev lo root tbf rate 80bit burst 2000 limit 1000000") -- after two kilobytes: nothing
  return with_program(source, function(path)
    local words = { build .. "/foreign_socket", kind }
    table.move(process.lua(path), 1, 2, #words + 1, words)
    return output_of { "sh", "-c", "exec " .. network:program(table.concat(words, " ")) }
  end)
end

describe("transmit timestamps that the maker of a descriptor asked for", function()
  local receives = {
    receive_string = "watch(s.receive_string, s)",
    receive_many = "watch(s.receive_many, s, ip.udp.batch.new(4))",
    receive_message = "watch(s.receive_message, s, ip.byte_span.new(9))",
    datagrams = "watch(function() for _ in s:datagrams() do end end)",
  }
  for name, call in pairs(receives) do
    it_built("do not keep a waiting " .. name .. " busy, nor away from what arrives", function()
      assert.equal("ETIMEDOUT\tidle\nlater\n", run("timestamps", [[
        s.receive_timeout = 0.6
        s:send_to("stamped", "127.0.0.1", sink.local_port)
        ]] .. call .. [[
        s:send_to("stamped", "127.0.0.1", sink.local_port)
        local waiting = ip.fiber.spawn(s.receive_string, s)
        ip.fiber.run(function()
          ip.fiber.sleep(0.05)
          sink:send_to("later", "127.0.0.1", s.local_port)
          print((waiting:join()))
        end)
      ]]))
    end)
  end

  local sends = {
    send_to = 's.send_timeout = 0.6 watch(s.send_to, s, "x", "127.0.0.1", sink.local_port)',
    send_many = [[
      local batch = ip.udp.batch.new(1)
      batch:set(1, "x", "127.0.0.1", sink.local_port)
      s.send_timeout = 0.6
      watch(s.send_many, s, batch)]],
    flush = [[
      s:set_option("coalesce", true)
      s:send_to("x", "127.0.0.1", sink.local_port)
      s.send_timeout = 0.6
      watch(s.flush, s)]],
    coalesce = [[
      s:set_option("coalesce", true)
      s:send_to("x", "127.0.0.1", sink.local_port)
      watch(ip.fiber.with_timeout, 0.6, ip.fiber.sleep, 5)]],
    ["coalesce and receive_errors"] = [[
      s:set_option("receive_errors", true)
      s:set_option("coalesce", true)
      s:send_to("x", "127.0.0.1", sink.local_port)
      watch(ip.fiber.with_timeout, 0.6, ip.fiber.sleep, 5)]],
  }
  for name, call in pairs(sends) do
    it_blocked("do not keep busy what waits to send: " .. name, function()
      assert.equal("ETIMEDOUT\tidle\n", run_blocked("timestamps", [[
        s:set_option("send_buffer_size", 1)
        while s:try_send_to(("."):rep(1000), "127.0.0.1", sink.local_port) do end
        ]] .. call .. [[

        os.exit(0, false) -- what is left would wait for the link
      ]]))
    end)
  end
end)

describe("a socket whose twin is shut down by another process", function()
  local receives = {
    receive = "s.receive, s, ip.byte_span.new(9)",
    receive_from = "s.receive_from, s, ip.byte_span.new(9)",
    receive_string = "s.receive_string, s",
    receive_message = "s.receive_message, s, ip.byte_span.new(9)",
    receive_many = "s.receive_many, s, ip.udp.batch.new(4)",
  }
  for name, call in pairs(receives) do
    for _, side in ipairs { "r", "b" } do
      it_built(("ends a waiting %s with ESHUTDOWN, and later ones at once (%s)"):format(name, side), function()
        assert.equal("ESHUTDOWN\tidle\nESHUTDOWN\tidle\n", run("twin", ([[
          s.receive_timeout = 5
          ip.fiber.spawn(function() ip.fiber.sleep(0.05) shut_twin(%q) end)
          watch(%s)
          watch(%s)
        ]]):format(side, call, call)))
      end)
    end
  end

  it_built("still gives what has arrived before, and receives while only its sends are shut", function()
    assert.equal("before\nESHUTDOWN\tidle\n", run("twin", [[
      s:send("before")
      shut_twin("r")
      ip.fiber.sleep(0.1)
      print((s:receive_string()))
      s.receive_timeout = 5
      watch(s.receive_string, s)
    ]]))
    assert.equal("ETIMEDOUT\tidle\nEPIPE\tidle\n", run("twin", [[
      shut_twin("w")
      s.receive_timeout = 0.5
      watch(s.receive_string, s)
      watch(s.send, s, "x")
    ]]))
  end)
end)
