-- What sntp_server.lua promises, run as a process.
local ip = require "ip"
local support = require "spec.support"
local examples = require "spec.support.examples"
local platform = require "spec.support.platform"
local process = require "spec.support.process"

local with_loop, start_server = support.with_loop, examples.start_server
local assert_help, assert_refused = examples.assert_help, examples.assert_refused

describe("sntp_server.lua", function()
  after_each(process.stop_all)

  local PACKET = ">B B i1 i1 I4 I4 c4 I8 I8 I8 I8"
  local ORIGINATE = 0x0123456789ABCDEF

  local function query(version, mode, rest)
    return string.pack(PACKET, version << 3 | mode, 0, 6, 0, 0, 0, "\0\0\0\0", 0, 0, 0, ORIGINATE) .. (rest or "")
  end

  local function parse(packet)
    assert.equal(48, #packet)
    local reply = {}
    reply.first, reply.stratum, reply.poll, reply.precision, reply.delay, reply.dispersion, reply.reference_id,
      reply.reference, reply.originate, reply.receive, reply.transmit = string.unpack(PACKET, packet)
    return reply
  end

  -- Seconds since 1970 of an NTP timestamp.
  local function unix(timestamp)
    return (timestamp >> 32) - 2208988800 + (timestamp & 0xFFFFFFFF) / 2 ^ 32
  end

  it("has --help and refuses wrong arguments", with_loop(function()
    assert_help("sntp_server")
    assert_refused("sntp_server", "%-%-port 70000", "--port", "70000")
    assert_refused("sntp_server", "%-%-stratum 16", "--stratum", "16")
    assert_refused("sntp_server", "%-%-address nowhere", "--address", "nowhere")
    assert_refused("sntp_server", "unexpected argument more", "more")
  end, 20))

  it("answers with the time, the client's timestamp and its own stratum", with_loop(function()
    local server <close>, port = start_server("sntp_server", "--port", "0", "--stratum", "3")
    local client <close> = ip.udp.connect("127.0.0.1", port, { receive_timeout = 10 })
    for version = 1, 4 do
      local sent = ip.fiber.time() / 1e9
      client:send(query(version, 3))
      local reply = parse(client:receive_string())
      local received = ip.fiber.time() / 1e9
      assert.equal(version << 3 | 4, reply.first)
      assert.equal(3, reply.stratum)
      assert.equal(6, reply.poll)
      assert.truthy(reply.precision < 0)
      assert.equal(ORIGINATE, reply.originate)
      assert.truthy(math.ult(reply.receive, reply.transmit) or reply.receive == reply.transmit)
      assert.truthy(math.ult(reply.reference, reply.transmit) or reply.reference == reply.transmit)
      assert.truthy(unix(reply.receive) > sent - 0.001, "received before it was sent")
      assert.truthy(unix(reply.transmit) < received + 0.001, "left after it has come")
    end
    assert.equal("", server:errors())
  end, 20))

  it("ignores what is malformed or of no client", with_loop(function()
    local server <close>, port = start_server("sntp_server", "--port", "0")
    local client <close> = ip.udp.connect("127.0.0.1", port, { receive_timeout = 10 })
    local whole = query(4, 3)
    for _, bad in ipairs { "", "\x23", whole:sub(1, 47), whole .. "x", ("x"):rep(3000), query(0, 3), query(5, 3) } do
      client:send(bad)
    end
    for _, mode in ipairs { 0, 1, 2, 4, 5, 6, 7 } do
      client:send(query(4, mode))
    end
    client:send(query(4, 3, ("k"):rep(20))) -- with a digest that is not looked at
    local reply = parse(client:receive_string())
    assert.equal(ORIGINATE, reply.originate) -- the first answer is that to the last query
    assert.is_nil(client:try_receive(ip.byte_span.new(48)))
    assert.equal("", server:errors())
  end, 20))

  platform.it_linux("answers from the address that was asked", with_loop(function()
    local server <close>, port = start_server("sntp_server", "--address", "0.0.0.0", "--port", "0")
    local client <close> = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 10 })
    for _, address in ipairs { "127.0.0.2", "127.0.0.1", "127.7.7.7" } do
      client:send_to(query(4, 3), address, port)
      local _, from, from_port = client:receive_string()
      assert.equal(address, tostring(from))
      assert.equal(port, from_port)
    end
    assert.equal("", server:errors())
  end, 20))

  local chronyd = os.getenv("LUA_IP_CHRONYD") or "chronyd"
  local has_chronyd = os.execute(("'%s' -v >/dev/null 2>&1"):format(chronyd)) == true
  local it_chronyd = platform.it_where(has_chronyd, "chronyd")

  it_chronyd("is believed by chronyd, which only looks (-Q) and never sets the clock", with_loop(function()
    local server <close>, port = start_server("sntp_server", "--port", "0")
    local pid_file = os.tmpname()
    local output, errors, code = process.run(process.foreign(chronyd, "-U", "-Q", "-x", "-u", "root", "-f",
      "/dev/null", "-t", "8", ("server 127.0.0.1 port %d iburst maxsamples 1"):format(port), "cmdport 0",
      "pidfile " .. pid_file))
    os.remove(pid_file)
    local said = output .. errors
    assert.matches("System clock wrong by %-?[%d.]+ seconds %(ignored%)", said)
    assert.equal(0, code)
    assert.truthy(math.abs(tonumber(said:match("wrong by (%-?[%d.]+)"))) < 0.5)
    assert.equal("", server:errors())
  end, 30))
end)
