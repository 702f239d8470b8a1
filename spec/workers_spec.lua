-- What workers.lua promises: several processes on one port, and none of them left. Run as processes.
local ip = require "ip"
local support = require "spec.support"
local examples = require "spec.support.examples"
local platform = require "spec.support.platform"
local process = require "spec.support.process"

local with_loop, it_linux = support.with_loop, platform.it_linux
local assert_refused = examples.assert_refused

-- The processes that `pid` has started.
local function children_of(pid)
  local pipe <close> = assert(io.popen("cat /proc/[0-9]*/stat 2>/dev/null"))
  local found = {}
  for line in pipe:lines() do
    local child, state, parent = line:match("^(%d+) %b() (%a) (%d+)")
    if tonumber(parent) == pid and state ~= "Z" then found[#found + 1] = tonumber(child) end
  end
  return found
end

local function is_alive(pid)
  local file <close> = io.open(("/proc/%d/stat"):format(pid))
  local text = file and file:read("a")
  return text ~= nil and text:match("^%d+ %b() (%a)") ~= "Z"
end

local function wait_for_the_end_of(pids)
  for _, pid in ipairs(pids) do
    support.wait_until(function() return not is_alive(pid) end)
  end
end

local function start_serving(count)
  local server = process.start(examples.words("workers", "--serve", "--workers", count))
  local _, port = ip.toendpoint(server:wait_for("listening on (%S+) with " .. count .. " workers\n"))
  return server, port
end

-- Sends one datagram from each of `count` ports and expects it back.
local function echo_from_many(port, count)
  for i = 1, count do
    local client <close> = ip.udp.connect("127.0.0.1", port, { receive_timeout = 10 })
    client:send("datagram " .. i)
    assert.equal("datagram " .. i, (client:receive_string()))
  end
end

describe("workers.lua", function()
  after_each(process.stop_all)

  it("has --help", with_loop(function()
    examples.assert_help("workers")
  end))

  it("refuses wrong arguments", with_loop(function()
    for message, words in pairs {
      ["%-%-workers 0: "] = { "--workers", "0" },
      ["%-%-seconds 0: "] = { "--seconds", "0" },
      ["%-%-loads x: "] = { "--loads", "x" },
      ["%-%-size 1473: "] = { "--size", "1473" },
      ["%-%-role nobody: "] = { "--role", "nobody" },
      ["%-%-address nowhere: "] = { "--address", "nowhere" },
      ["unexpected argument more"] = { "more" },
      ["unknown option %-%-nonsense"] = { "--nonsense" },
    } do
      assert_refused("workers", message, table.unpack(words))
    end
  end, 20))

  it("says that it cannot have the port", with_loop(function()
    local sock <close>, port = support.bound()
    assert.is_true(sock.is_open)
    local _, errors, code = process.run(examples.words("workers", "--port", port, "--workers", "1"))
    assert.equal(1, code)
    assert.matches("^workers%.lua: cannot listen on 127%.0%.0%.1:%d+: .*EADDRINUSE%)\n$", errors)
  end))

  it_linux("measures with one and with two workers, each of which gets traffic", with_loop(function()
    local output, errors, code = process.run(examples.words("workers", "--workers", "2", "--seconds", "0.5"), 50)
    assert.equal("", errors)
    assert.equal(0, code)
    assert.matches("^%d+ cores, datagrams of 64 bytes, load by 1 process\nworkers [^\n]+\n", output)
    local one, both = output:match("\n +1 +(%d+) +[%d.]+  100%.0\n +2 +(%d+) ")
    assert.is_true(tonumber(one) > 0 and tonumber(both) > 0, output)
    local first, second = output:match("(%d+%.%d) (%d+%.%d)\n$")
    assert.is_true(tonumber(first) > 0 and tonumber(second) > 0, output)
  end, 60))

  it_linux("serves with workers that all get traffic, and Ctrl-C ends all", with_loop(function()
    local server <close>, port = start_serving(2)
    local children = children_of(server.pid)
    assert.equal(2, #children)
    echo_from_many(port, 64)
    server:signal("INT")
    assert.equal(0, server:wait())
    wait_for_the_end_of(children)
    local first, second = server:output():match("\n64 echoes, share of each worker, %%: ([%d.]+) ([%d.]+)\n$")
    assert.is_true(first and tonumber(first) > 0 and tonumber(second) > 0, server:output())
    assert.equal("", server:errors())
  end, 30))

  it_linux("goes on where Ctrl-C comes to a worker alone", with_loop(function()
    local server <close>, port = start_serving(1)
    local children = children_of(server.pid)
    assert(os.execute(("kill -INT %d"):format(children[1])))
    echo_from_many(port, 1)
    server:signal("TERM")
    assert.equal(0, server:wait())
    wait_for_the_end_of(children)
    assert.equal("", server:errors())
  end, 30))

  -- A measurement starts with one worker, a server with all of them: it takes a while until twenty have started.
  for what, arguments in pairs { ["a measurement"] = {}, ["a server"] = { "--serve" } } do
    it_linux("says nothing when Ctrl-C comes while the workers of " .. what .. " start", with_loop(function()
      local starting <close> = process.start(examples.words("workers", "--workers", "20", table.unpack(arguments)))
      local children
      starting:poll("a worker", 20, function()
        children = children_of(starting.pid)
        return #children > 0
      end)
      starting:signal("INT")
      local code = starting:wait()
      assert.equal(starting:output():find("echoes, share") and 0 or 130, code) -- 0: all had started, before it came
      wait_for_the_end_of(children)
      assert.equal("", starting:errors())
    end, 30))
  end

  it_linux("leaves no process behind when Ctrl-C ends a measurement", with_loop(function()
    local measuring <close> = process.start(examples.words("workers", "--workers", "2", "--seconds", "60"))
    local children
    measuring:poll("a worker and the load", 20, function()
      children = children_of(measuring.pid)
      return #children == 2
    end)
    measuring:signal("INT")
    assert.equal(130, measuring:wait())
    wait_for_the_end_of(children)
    assert.equal("", measuring:errors())
  end, 30))

  it_linux("leaves no process behind when it is killed", with_loop(function()
    local server <close> = start_serving(2)
    local children = children_of(server.pid)
    assert.equal(2, #children)
    server:signal("KILL")
    wait_for_the_end_of(children)
  end, 30))
end)
