-- What bandwidth.lua promises, run as two processes, or against a sender that loses and exchanges datagrams.
local ip = require "ip"
local support = require "spec.support"
local examples = require "spec.support.examples"
local platform = require "spec.support.platform"
local process = require "spec.support.process"

local with_loop = support.with_loop
local assert_help, assert_refused = examples.assert_help, examples.assert_refused

local HEADER, DATA, END, REPORT = ">I4 I4 I8 d", 0x62774431, 0x62774531, 0x62775231
local REPORT_FORMAT = ">I4 I4 I8 I8 I8 I8 d d"

-- The fields of a JSON object without nesting.
local function fields_of(json)
  local fields = {}
  assert.matches("^{.*}\n$", json)
  for name, text in json:gmatch('"([%w_]+)":("?[^,"}]*)') do fields[name] = tonumber(text) or text:sub(2) end
  return fields
end

describe("bandwidth.lua", function()
  after_each(process.stop_all)

  it("has --help and refuses wrong arguments", with_loop(function()
    assert_help("bandwidth")
    assert_refused("bandwidth", "%-%-mode fast: plain, batch", "--mode", "fast")
    assert_refused("bandwidth", "%-%-rate 10X", "--rate", "10X")
    assert_refused("bandwidth", "%-%-rate 0", "--rate", "0")
    assert_refused("bandwidth", "%-%-size 23", "--size", "23")
    assert_refused("bandwidth", "%-%-port 0", "--to", "127.0.0.1", "--port", "0")
    assert_refused("bandwidth", "unexpected argument more", "more")
  end, 20))

  for _, mode in ipairs { "plain", "batch", "coalesce", "segments" } do
    local it_mode = mode == "segments" and platform.it_linux or it
    it_mode("counts every datagram, sent and received in mode " .. mode, with_loop(function()
      local receiver <close>, port = examples.start_server("bandwidth", "--port", "0", "--mode", mode, "--once")
      -- as many as any receive buffer holds: none is lost, whatever the machine does meanwhile
      local output, errors, code = examples.run("bandwidth", "--to", "127.0.0.1", "--port", port, "--mode", mode,
        "--count", "64", "--size", "100", "--json")
      assert.equal(0, code, errors)
      local result = fields_of(output)
      assert.same({ 64, 64, 6400, 0, 0, 0, mode }, { result.sent, result.received, result.bytes, result.lost,
        result.reordered, result.dropped, result.mode })
      assert.is_true(result.jitter >= 0 and result.seconds >= 0)
      assert.equal(0, receiver:wait())
      assert.matches("; 0 of 64 lost %(0.00 %%%), of these 0 dropped", receiver:output())
      assert.is_nil(receiver:output():find("\r", 1, true))
    end, 30))
  end

  it("counts what is lost and what comes late, and has the jitter of RFC 3550", with_loop(function()
    local receiver <close>, port = examples.start_server("bandwidth", "--port", "0", "--once")
    local sock <close> = ip.udp.connect("127.0.0.1", port, { receive_timeout = 20 })
    local function send(kind, number, time) sock:send(string.pack(HEADER, kind, 7, number, time) .. ("."):rep(10)) end
    for _, case in ipairs { { 1, 0.0 }, { 2, 0.0 }, { 4, 16.0 }, { 3, 16.0 }, { 6, 16.0 } } do
      send(DATA, case[1], case[2])
    end
    sock:send("noise")
    for _ = 1, 2 do -- a report that is lost is asked for again
      send(END, 6, 0.0)
      local kind, run, received, bytes, reordered, dropped, seconds, jitter =
        string.unpack(REPORT_FORMAT, (sock:receive_string()))
      assert.same({ REPORT, 7, 5, 5 * 34, 1, 0 }, { kind, run, received, bytes, reordered, dropped })
      assert.is_true(seconds >= 0)
      -- one difference of 16 s, followed by two of about none: 16/16 times (15/16)^2
      assert.is_true(math.abs(jitter - (15 / 16) ^ 2) < 0.1, jitter)
    end
    assert.equal(0, receiver:wait())
    assert.matches("; 1 of 6 lost %(16.67 %%%), .*; 1 reordered;", receiver:output())
  end, 30))

  for _, mode in ipairs { "plain", "batch", "coalesce", "segments" } do
    local it_mode = mode == "segments" and platform.it_linux or it
    it_mode("sends at most --count datagrams in mode " .. mode, with_loop(function()
      local receiver <close>, port = examples.start_server("bandwidth", "--port", "0") -- luacheck: ignore receiver
      for _, count in ipairs { "1", "33" } do
        local output, errors, code = examples.run("bandwidth", "--to", "127.0.0.1", "--port", port, "--mode", mode,
          "--count", count, "--size", "100", "--json")
        assert.equal(0, code, errors)
        local result = fields_of(output)
        assert.same({ tonumber(count), tonumber(count) }, { result.sent, result.received })
      end
    end, 30))
  end

  -- Sends one packet of a run to a receiver.
  local function send(sock, kind, run, number) sock:send(string.pack(HEADER, kind, run, number, 0.0)) end

  -- Ends a run, and returns how many of its datagrams the receiver reports.
  local function end_run(sock, run, number)
    send(sock, END, run, number)
    local kind, its_run, received = string.unpack(REPORT_FORMAT, (sock:receive_string()))
    assert.same({ REPORT, run }, { kind, its_run })
    return received
  end

  it("reports each run of several senders at once, and of one that follows a killed one", with_loop(function()
    local receiver <close>, port = examples.start_server("bandwidth", "--port", "0")
    local senders = {}
    for run = 1, 3 do senders[run] = ip.udp.connect("127.0.0.1", port, { receive_timeout = 10 }) end
    for number = 1, 5 do
      for run, sock in ipairs(senders) do send(sock, DATA, run, number) end
    end
    assert.equal(5, end_run(senders[3], 3, 5)) -- the first one says no more
    send(senders[2], DATA, 2, 6)
    assert.equal(6, end_run(senders[2], 2, 6))
    assert.equal(5, end_run(senders[3], 3, 5)) -- asked for again
    assert.equal(2, select(2, receiver:output():gsub("; 0 of %d lost", "")))
  end, 30))

  it("forgets the run that was silent for the longest time, however many begin", with_loop(function()
    local receiver <close>, port = examples.start_server("bandwidth", "--port", "0") -- luacheck: ignore receiver
    local sock <close> = ip.udp.connect("127.0.0.1", port, { receive_timeout = 10 })
    for number = 1, 200 do
      send(sock, DATA, 1, number)
      send(sock, DATA, 1000 + number, 1)
      if number % 50 == 0 then ip.fiber.sleep(0.02) end
    end
    assert.equal(200, end_run(sock, 1, 200))
    sock.receive_timeout = 0.1
    assert.is_false(pcall(end_run, sock, 1001, 1))
  end, 30))

  it("sends no faster than --rate says", with_loop(function()
    local receiver <close>, port = examples.start_server("bandwidth", "--port", "0") -- luacheck: ignore receiver
    local begin = ip.fiber.now()
    local output = examples.run("bandwidth", "--to", "127.0.0.1", "--port", port, "--rate", "2M", "--size", "1250",
      "--count", "100", "--json")
    assert.equal(100, fields_of(output).sent)
    assert.is_true(ip.fiber.now() - begin >= 99 * 1250 * 8 / 2e6)
  end, 30))

  it("writes plain progress lines where its output is no terminal", with_loop(function()
    local receiver <close>, port = examples.start_server("bandwidth", "--port", "0", "--interval", "0.05")
    local output = examples.run("bandwidth", "--to", "127.0.0.1", "--port", port, "--rate", "2M", "--seconds", "0.5",
      "--interval", "0.05")
    assert.matches("sending [%d.]+ %a?bit/s\n", output)
    assert.matches("bit/s, %d+ datagrams/s, %d+ lost or late, jitter [%d.]+ ms\n", receiver:output())
    assert.is_nil(output:find("[\r\27]"))
  end, 30))

  it("says when nobody receives, or the host is unknown", with_loop(function()
    local output, errors, code = examples.run("bandwidth", "--to", "127.0.0.1", "--port", support.dead_port(),
      "--seconds", "0.2")
    assert.equal(1, code)
    assert.matches("^bandwidth.lua: .*\n$", errors)
    assert.equal("", output)
    output, errors, code = examples.run("bandwidth", "--to", "no such host", "--port", "9")
    assert.equal(1, code)
    assert.matches("cannot look up no such host", errors)
    assert.equal("", output)
  end, 30))

  it("speaks of sending no more while it waits for the report", with_loop(function()
    local silent <close>, port = support.bound() -- luacheck: ignore silent
    local output, errors, code = examples.run("bandwidth", "--to", "127.0.0.1", "--port", port, "--count", "1",
      "--interval", "0.3")
    assert.equal(1, code)
    assert.matches("no report from 127.0.0.1", errors)
    assert.equal("", output)
  end, 30))

  platform.it_where(platform.is_linux and process.exists("script"), "script")(
    "writes no error behind a progress line of a terminal", with_loop(function()
      local silent <close>, port = support.bound() -- luacheck: ignore silent
      local words = examples.words("bandwidth", "--to", "127.0.0.1", "--port", port, "--seconds", "0.3", "--rate", "1M",
        "--interval", "0.1")
      local command = ("LD_PRELOAD='%s' %s"):format(os.getenv("LD_PRELOAD") or "", table.concat(words, " "))
      local output = process.run(process.foreign("script", "-qec", command, "/dev/null"))
      assert.matches("\r\27%[Ksending [%d.]+ %a?bit/s\r\27%[Kbandwidth.lua: no report", output)
    end, 30))
end)
