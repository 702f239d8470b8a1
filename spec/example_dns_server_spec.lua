local dns = require "examples.dns_message"
local ip = require "ip"
local process = require "spec.support.process"
local support = require "spec.support"

local function example(name, ...)
  return process.lua("examples/" .. name .. ".lua", ...)
end

local function run_example(...)
  return process.run(example(...))
end

-- Starts a server of the examples with a port that the system chooses; returns it and its ports on v4 and v6, where it
-- listens there.
local function start_server(...)
  local server = process.start(example(...))
  server:wait_for("listening on")
  local ports = {}
  for text in server:output():gmatch("listening on (%S+)") do
    local address, port = ip.toendpoint(text)
    ports[address.is_v6 and "v6" or "v4"] = port
  end
  return server, ports
end

local has_v6 = (function()
  local ok, sock = pcall(ip.udp.bind, "::1", 0)
  if ok then sock:close() end
  return ok
end)()

-- What dns_server.lua has written to stderr, but not that there is no v6, where there is none.
local function complaints_of(server)
  local errors = server:errors()
  return has_v6 and errors or (errors:gsub("^dns_server%.lua: cannot listen on %[::1%][^\n]*\n", ""))
end

local function need_v6()
  if not has_v6 then pending("this system has no v6") end
  return has_v6
end

local function need_program(name)
  local found = process.exists(name)
  if not found then pending(name .. " is not installed") end
  return found
end

-- Runs an example while serve(sock) answers it in a fiber of this process; returns what process.run does. `words` gets
-- the port.
local function run_against(serve, words)
  local sock <close>, port = support.bound()
  local server = ip.fiber.spawn(serve, sock)
  local output, errors, code = process.run(words(port))
  server:interrupt()
  server:join()
  return output, errors, code
end

local function matches(pattern, text)
  assert.truthy(text:find(pattern), ("no match of %s in: %s"):format(pattern, text))
end

describe("the examples' command lines", function()
  after_each(process.stop_all)

  local no_operands = { echo_server = true, echo_client = true, dns_server = true }

  for _, name in ipairs { "echo_server", "echo_client", "dns_server", "dns_lookup" } do
    local function is_refused(message, ...)
      local output, errors, code = run_example(name, ...)
      assert.equal(2, code)
      assert.equal("", output)
      matches("^" .. name .. "%.lua: .*" .. message, errors)
      matches("usage: " .. name .. "%.lua", errors)
    end

    it(name .. " has --help", support.with_loop(function()
      local output, errors, code = run_example(name, "--help")
      assert.equal(0, code)
      assert.equal("", errors)
      matches("^usage: " .. name .. "%.lua .*%-%-port PORT.*%-%-help", output)
    end))

    it(name .. " refuses wrong arguments", support.with_loop(function()
      is_refused("unknown option %-%-nonsense", "--nonsense")
      is_refused("unknown option %-x", "-x")
      is_refused("%-%-port needs a value", "--port")
      is_refused("%-%-port 70000: .*65535", "--port", "70000")
      is_refused("%-%-port 12x: .*whole number", "--port=12x")
      if no_operands[name] then is_refused("unexpected argument more", "more") end
    end))
  end

  it("refuse addresses, counts and times that are none", support.with_loop(function()
    local function is_refused(...)
      local _, errors, code = run_example(...)
      assert.equal(2, code)
      matches("usage:", errors)
    end
    is_refused("echo_server", "--address", "localhost")
    is_refused("echo_client", "--address", "1.2.3")
    is_refused("echo_client", "--count", "0")
    is_refused("echo_client", "--size", "15")
    is_refused("echo_client", "--timeout", "0")
    is_refused("echo_client", "--interval", "-1")
    is_refused("echo_client", "--in-flight", "0")
    is_refused("echo_client", "--quiet=yes")
    is_refused("dns_server", "--zone", "/nonexistent/zone")
    is_refused("dns_lookup")
    is_refused("dns_lookup", "--server", "localhost", "www.example.test")
    is_refused("dns_lookup", "--type", "A,MX", "www.example.test")
    is_refused("dns_lookup", "--tries", "0", "www.example.test")
    is_refused("dns_lookup", "a..b")
    is_refused("dns_lookup", ("x"):rep(64))
    is_refused("dns_lookup", ("abcdefg."):rep(32))
  end))
end)

describe("echo_server.lua and echo_client.lua", function()
  after_each(process.stop_all)

  local function echo_all(address, family)
    local server <close>, ports = start_server("echo_server", "--address", address, "--port", "0")
    local output, errors, code = run_example("echo_client", "--address", address, "--port", ports[family],
      "--count", "300", "--in-flight", "10", "--size", "700")
    assert.equal(0, code)
    assert.equal("", errors) -- no progress line: stderr is a file
    matches("^300 sent, 300 received, 0 lost %(0%.0 %%%)\n", output)
    assert.equal("", server:errors())
    matches("round trip: min %d+%.%d+ ms, median %d+%.%d+ ms, p99 %d+%.%d+ ms, max %d+%.%d+ ms\n$", output)
  end

  it("work together over v4", support.with_loop(function() echo_all("127.0.0.1", "v4") end, 30))

  it("work together over v6", support.with_loop(function()
    if need_v6() then echo_all("::1", "v6") end
  end, 30))

  it("echo empty and largest datagrams, also after a sender has gone", support.with_loop(function()
    local server <close>, ports = start_server("echo_server", "--port", "0")
    local gone = ip.udp.connect("127.0.0.1", ports.v4)
    gone:send("nobody is there for the answer")
    gone:close()
    local sock <close> = ip.udp.connect("127.0.0.1", ports.v4, { receive_timeout = 5 })
    for _, text in ipairs { "", "hello", ("x"):rep(65507), "after" } do
      sock:send(text)
      assert.equal(text, (sock:receive_string()))
    end
    assert.equal("", server:errors())
  end))

  it("end with Ctrl-C as lua does", support.with_loop(function()
    local server <close> = start_server("echo_server", "--port", "0")
    server:signal("INT")
    assert.equal(1, server:wait())
    matches("interrupted!\nstack traceback", server:errors())
  end))

  it("say where the server cannot listen", support.with_loop(function()
    local sock <close>, port = support.bound()
    local output, errors, code = run_example("echo_server", "--port", port)
    assert.is_true(sock.is_open)
    assert.equal(1, code)
    assert.equal("", output)
    matches("^echo_server%.lua: cannot listen on 127%.0%.0%.1:" .. port .. ": .*EADDRINUSE%)\n$", errors)
  end))

  -- answer(reply, data, sequence) is called for each datagram of the client.
  local function measure(answer, ...)
    local options = { ... }
    return run_against(function(sock)
      while true do
        local data, address, port = sock:receive_string()
        local _, sequence = string.unpack(">I4 I4", data)
        answer(function(text) sock:send_to(text, address, port) end, data, sequence)
      end
    end, function(port)
      return example("echo_client", "--port", port, table.unpack(options))
    end)
  end

  it("count what is lost", support.with_loop(function()
    local output, _, code = measure(function(reply, data, sequence)
      if sequence % 5 ~= 0 then reply(data) end
    end, "--count", "20", "--in-flight", "4", "--timeout", "0.5")
    assert.equal(0, code)
    matches("^20 sent, 16 received, 4 lost %(20%.0 %%%)\nlost: 4 ETIMEDOUT\nround trip", output)
  end, 30))

  it("count duplicates, late answers and what is foreign", support.with_loop(function()
    local kept
    local output, _, code = measure(function(reply, data, sequence)
      if sequence == 2 then
        kept = data -- is answered after the next one was sent: too late
        return
      end
      if sequence == 3 then
        reply(kept)
        reply(kept) -- a duplicate
      elseif sequence == 4 then
        reply("")
        reply("short")
        reply(data .. "x") -- claims to be the answer and is not
        reply(string.pack(">I4 I4 d", 0, 1, 0) .. data:sub(17)) -- of another run
      end
      reply(data)
      if sequence == 1 then reply(data) end
    end, "--count", "5", "--timeout", "1")
    assert.equal(0, code)
    matches("^5 sent, 4 received, 1 lost %(20%.0 %%%)\nlost: 1 ETIMEDOUT\n"
      .. "also received: 2 duplicates, 1 too late, 4 foreign\n", output)
  end, 30))

  it("exit with 1 when nothing comes back", support.with_loop(function()
    local output, _, code = measure(function() end, "--count", "2", "--timeout", "0.1")
    assert.equal(1, code)
    assert.equal("2 sent, 0 received, 2 lost (100.0 %)\nlost: 2 ETIMEDOUT\n", output)
  end, 30))

  it("say that nobody listens", support.with_loop(function()
    local output, _, code = run_example("echo_client", "--port", support.dead_port(), "--count", "3")
    assert.equal(1, code)
    assert.equal("3 sent, 0 received, 3 lost (100.0 %)\nlost: 3 ECONNREFUSED\n", output)
  end))

  it("keep the interval", support.with_loop(function()
    local server <close>, ports = start_server("echo_server", "--port", "0")
    local before = ip.fiber.now()
    local _, _, code = run_example("echo_client", "--port", ports.v4, "--count", "6", "--interval", "0.1")
    assert.equal(0, code)
    assert.truthy(ip.fiber.now() - before >= 0.5)
    assert.truthy(server:is_running())
  end))

  it("show what was measured up to Ctrl-C", support.with_loop(function()
    local server <close>, ports = start_server("echo_server", "--port", "0")
    local client <close> = process.start(example("echo_client", "--port", ports.v4, "--interval", "0.01",
      "--count", "100000"))
    ip.fiber.sleep(0.2)
    support.wait_until(function() return client:is_running() end)
    client:signal("INT")
    assert.equal(1, client:wait())
    matches("^%d+ sent, %d+ received", client:output())
    matches("interrupted!", client:errors())
    assert.truthy(server:is_running())
  end))
end)

-- --- DNS ---

local function query(id, text, type, size)
  return tostring(dns.query(id, { name = dns.name_from_text(text), type = dns.type[type], class = 1 }, size))
end

-- A query for www.example.test that is answered.
local function good_query(id)
  return query(id, "www.example.test", "A")
end

local function header(id, flags, questions, answers, authorities, additionals)
  return string.pack(dns.HEADER, id, flags, questions, answers or 0, authorities or 0, additionals or 0)
end

local www = dns.name_from_text("www.example.test")
local a_in = string.pack(">I2 I2", 1, 1)

describe("dns_server.lua", function()
  local server, ports

  setup(function()
    server, ports = start_server("dns_server", "--port", "0")
  end)
  teardown(process.stop_all)

  local function dig(...)
    local output, _, code = process.run(process.foreign("dig", "@127.0.0.1", "-p", ports.v4, "+tries=1", "+time=5",
      "+ignore", "+notcp", ...))
    assert.equal(0, code)
    return output
  end

  -- Is the answer to dig's question `status`, with these flags and as many answers and authorities?
  local function has_head(output, status, flags, answers, authorities)
    matches("status: " .. status .. ",", output)
    matches(("flags: %s; QUERY: 1, ANSWER: %d, AUTHORITY: %d,"):format(flags, answers, authorities), output)
  end

  describe("asked by dig", function()
    local function with_dig(fn)
      return support.with_loop(function()
        if need_program("dig") then fn() end
      end)
    end

    it("answers A", with_dig(function()
      local output = dig("www.example.test")
      has_head(output, "NOERROR", "qr aa rd", 2, 0)
      matches("www%.example%.test%.%s+300%s+IN%s+A%s+192%.0%.2%.80", output)
      matches("www%.example%.test%.%s+300%s+IN%s+A%s+192%.0%.2%.81", output)
    end))

    it("answers AAAA", with_dig(function()
      local output = dig("www.example.test", "AAAA")
      has_head(output, "NOERROR", "qr aa rd", 1, 0)
      matches("IN%s+AAAA%s+2001:db8::80", output)
    end))

    it("answers TXT, long texts in pieces of 255 bytes", with_dig(function()
      matches('IN%s+TXT%s+"one string" "and another"', dig("text.example.test", "TXT"))
      local whole = dig("+short", "long.example.test", "TXT"):gsub('" "', ""):match('"(.*)"')
      assert.equal(("a text of many strings "):rep(40):sub(1, -2), (whole:gsub("%s+$", "")))
    end))

    it("answers SOA", with_dig(function()
      matches("3600%s+IN%s+SOA%s+ns%.example%.test%. hostmaster%.example%.test%. 1 7200 900 1209600 300",
        dig("example.test", "SOA"))
    end))

    it("says NXDOMAIN, with SOA", with_dig(function()
      local output = dig("no.such.example.test")
      has_head(output, "NXDOMAIN", "qr aa rd", 0, 1)
      matches("\nexample%.test%.%s+300%s+IN%s+SOA%s+ns%.example%.test%.", output)
    end))

    it("says that a name has no such record, with SOA", with_dig(function()
      local output = dig("mail.example.test", "AAAA")
      has_head(output, "NOERROR", "qr aa rd", 0, 1)
      matches("\nexample%.test%.%s+300%s+IN%s+SOA%s+ns%.example%.test%.", output)
    end))

    it("refuses other zones and classes", with_dig(function()
      has_head(dig("www.example.com"), "REFUSED", "qr rd", 0, 0)
      has_head(dig("test"), "REFUSED", "qr rd", 0, 0)
      has_head(dig("notexample.test"), "REFUSED", "qr rd", 0, 0)
      has_head(dig("www.example.test", "CH", "A"), "REFUSED", "qr rd", 0, 0)
    end))

    it("gives one kind of records for ANY", with_dig(function()
      local output = dig("www.example.test", "ANY")
      has_head(output, "NOERROR", "qr aa rd", 2, 0)
      assert.falsy(output:find("AAAA"))
    end))

    it("looks at no case, and gives the question back as it came", with_dig(function()
      matches("\nWwW%.EXAMPLE%.Test%.%s+300%s+IN%s+A%s+192%.0%.2%.80", dig("WwW.EXAMPLE.Test"))
      has_head(dig("NOPE.EXAMPLE.TEST"), "NXDOMAIN", "qr aa rd", 0, 1)
    end))

    it("answers OPT with OPT, and no OPT with none", with_dig(function()
      matches("EDNS: version: 0, flags:; udp: 1232", dig("www.example.test"))
      local plain = dig("www.example.test", "+noedns")
      assert.falsy(plain:find("EDNS"))
      has_head(plain, "NOERROR", "qr aa rd", 2, 0)
      has_head(dig("www.example.test", "+edns=1", "+noednsneg"), "BADVERS", "qr rd", 0, 0)
    end))

    it("says that an answer is too large for plain DNS, or for the size in OPT", with_dig(function()
      has_head(dig("long.example.test", "TXT", "+noedns"), "NOERROR", "qr aa tc rd", 0, 0)
      has_head(dig("long.example.test", "TXT", "+bufsize=700"), "NOERROR", "qr aa tc rd", 0, 0)
      has_head(dig("long.example.test", "TXT", "+bufsize=100"), "NOERROR", "qr aa tc rd", 0, 0)
      has_head(dig("www.example.test", "+bufsize=60"), "NOERROR", "qr aa rd", 2, 0) -- less than 512 counts as 512
      has_head(dig("long.example.test", "TXT", "+bufsize=4096"), "NOERROR", "qr aa rd", 1, 0)
    end))

    it("says NOTIMP to other operations", with_dig(function()
      matches("opcode: STATUS, status: NOTIMP", dig("www.example.test", "+opcode=status"))
    end))

    it("answers over v6", with_dig(function()
      if not ports.v6 then return pending("this system has no v6") end
      local output = process.run(process.foreign("dig", "@::1", "-p", ports.v6, "+tries=1", "+time=5",
        "v6.example.test", "AAAA"))
      matches("IN%s+AAAA%s+2001:db8::6", output)
    end))
  end)

  -- Sends a datagram and, behind it, a good query. Returns the response code of the answer to the former, or nil where
  -- there is none: the answer to the latter has come first then.
  local function response_to(datagram)
    local sock <close> = ip.udp.connect("127.0.0.1", ports.v4, { receive_timeout = 5 })
    sock:send(datagram)
    sock:send(good_query(2))
    local code
    while true do
      local answer = assert(dns.parse(ip.byte_span.append((sock:receive_string()))))
      assert.is_true(answer.is_response)
      if answer.id == 2 then
        assert.equal(2, #answer.answers)
        return code
      end
      code = dns.rcode_name(answer.rcode)
    end
  end

  local question = www .. a_in
  local opt = dns.opt_record(1232)
  local malformed = {
    { "an empty datagram", "", nil },
    { "half a header", header(1, 0, 1):sub(1, 6), nil },
    { "a header that is one byte short", header(1, 0, 1):sub(1, 11), nil },
    { "an answer", header(1, 0x8000, 1) .. question, nil },
    { "a malformed answer", header(1, 0x8000, 1), nil },
    { "a header alone", header(1, 0, 1), "FORMERR" },
    { "no question", header(1, 0, 0), "FORMERR" },
    { "two questions", header(1, 0, 2) .. question .. question, "FORMERR" },
    { "65535 questions", header(1, 0, 65535) .. question, "FORMERR" },
    { "a name without an end", header(1, 0, 1) .. www:sub(1, -2), "FORMERR" },
    { "a question without its class", header(1, 0, 1) .. www .. "\0\1", "FORMERR" },
    { "a name that points to itself", header(1, 0, 1) .. "\xC0\x0C" .. a_in, "FORMERR" },
    { "a name that points to its own begin", header(1, 0, 1) .. "\3www\xC0\x0C" .. a_in, "FORMERR" },
    { "a name that points ahead", header(1, 0, 1) .. "\xC0\x12" .. a_in .. www, "FORMERR" },
    { "a name that points into the header", header(1, 0, 1) .. "\xC0\x04" .. a_in, "FORMERR" },
    { "a name that points behind the end", header(1, 0, 1) .. "\xFF\xFF" .. a_in, "FORMERR" },
    { "half a pointer", header(1, 0, 1) .. "\xC0", "FORMERR" },
    { "a label of 64 bytes", header(1, 0, 1) .. "\64" .. ("x"):rep(64) .. "\0" .. a_in, "FORMERR" },
    { "a label of a reserved kind", header(1, 0, 1) .. "\x80abc\0" .. a_in, "FORMERR" },
    { "a name of 256 bytes", header(1, 0, 1) .. ("\62" .. ("x"):rep(62)):rep(4) .. "\2ab\0" .. a_in, "FORMERR" },
    { "two records that point to each other",
      header(1, 0, 1, 2) .. question .. "\xC0\x2E\0\1\0\1\0\0\0\0\0\0" .. "\xC0\x22\0\1\0\1\0\0\0\0\0\0", "FORMERR" },
    { "records that are missing", header(1, 0, 1, 0, 0, 5) .. question, "FORMERR" },
    { "a record longer than the datagram",
      header(1, 0, 1, 0, 0, 1) .. question .. "\0\0\1\0\1\0\0\0\0\0\9abc", "FORMERR" },
    { "two OPT records", header(1, 0, 1, 0, 0, 2) .. question .. opt .. opt, "FORMERR" },
    { "an OPT record with a name", header(1, 0, 1, 0, 0, 1) .. question .. "\1a" .. opt, "FORMERR" },
    { "bytes behind the end", header(1, 0, 1) .. question .. "more", "FORMERR" },
    { "a datagram larger than OPT says", header(1, 0, 1) .. question .. ("x"):rep(60000), "FORMERR" },
    { "a datagram whose first 1232 bytes would do", header(1, 0, 1, 0, 0, 1) .. question
      .. "\0" .. string.pack(">I2 I2 I4 s2", 16, 1, 0, ("x"):rep(1232 - 12 - #question - 11)) .. "x", "FORMERR" },
    { "operation 2", header(1, 0x1000, 1) .. question, "NOTIMP" },
    { "operation 15 with nothing behind the header", header(1, 0x7800, 1), "NOTIMP" },
    { "class CH", header(1, 0, 1) .. www .. "\0\1\0\3", "REFUSED" },
    { "class ANY", header(1, 0, 1) .. www .. "\0\1\0\255", "REFUSED" },
    { "a question for OPT", header(1, 0, 1) .. www .. "\0\41\0\1", "NOTIMP" },
    { "a zone transfer", header(1, 0, 1) .. www .. "\0\252\0\1", "NOTIMP" },
    { "the root", header(1, 0, 1) .. "\0" .. a_in, "REFUSED" },
  }

  for _, case in ipairs(malformed) do
    local what, datagram, expected = table.unpack(case, 1, 3)
    it(("%s %s"):format(expected and "says " .. expected .. " to" or "is silent to", what),
      support.with_loop(function()
        assert.equal(expected, response_to(datagram))
      end))
  end

  it("takes a name of 255 bytes", support.with_loop(function()
    local name = ("\60" .. ("x"):rep(60)):rep(3) .. "\57" .. ("x"):rep(57) .. dns.name_from_text("example.test")
    assert.equal(255, #name)
    assert.equal("NXDOMAIN", response_to(header(1, 0, 1) .. name .. a_in))
  end))

  it("survives a thousand random datagrams", support.with_loop(function()
    local sock <close> = ip.udp.connect("127.0.0.1", ports.v4)
    for i = 1, 1000 do
      local bytes = {}
      for j = 1, math.random(0, 80) do
        bytes[j] = string.char(math.random(0, 255))
      end
      local whole = table.concat(bytes)
      -- every other one with the head of a query, so that it is read further
      sock:send(i % 2 == 0 and header(1, 0, 1) .. whole or whole)
      if i % 50 == 0 then assert.is_nil(response_to("")) end
    end
    assert.is_true(server:is_running())
    assert.equal("", complaints_of(server))
  end))

  describe("with a zone file", function()
    local function with_zone(text, fn)
      local path = os.tmpname()
      local file = assert(io.open(path, "w"))
      file:write(text)
      file:close()
      local ok, err = pcall(fn, path)
      os.remove(path)
      if not ok then error(err, 0) end
    end

    local soa = "zone.test 60 SOA ns.zone.test. admin.zone.test. 7 1 2 3 30\n"

    it("serves it", support.with_loop(function()
      if not need_program("dig") then return end
      with_zone("# a comment\r\n\n" .. soa .. "  # another\n"
        .. "Host.Zone.Test.  60  a  192.0.2.7\n"
        .. "host.zone.test\t60\tAAAA\t2001:db8::7\r\n"
        .. "a.b.zone.test 60 TXT no quotes # and all of it  \n"
        .. 'q.zone.test 60 TXT "say \\"hi\\"" "" "back\\\\slash"\n'
        .. "long.zone.test 60 TXT " .. ("y"):rep(300) .. "\n"
        .. "w\\.w\\065.zone.test 60 A 192.0.2.8\n", function(path)
        local own <close>, own_ports = start_server("dns_server", "--zone", path, "--port=0")
        local function short(...)
          return (process.run(process.foreign("dig", "@127.0.0.1", "-p", own_ports.v4, "+tries=1", "+time=5",
            "+short", ...)))
        end
        assert.equal("192.0.2.7\n", short("host.zone.test"))
        assert.equal("2001:db8::7\n", short("host.zone.test", "AAAA"))
        assert.equal('"no quotes # and all of it"\n', short("a.b.zone.test", "TXT"))
        assert.equal('"say \\"hi\\"" "" "back\\\\slash"\n', short("q.zone.test", "TXT"))
        assert.equal(('"%s" "%s"\n'):format(("y"):rep(255), ("y"):rep(45)), short("long.zone.test", "TXT"))
        assert.equal("192.0.2.8\n", short("W\\.wa.zone.test"))
        local between = process.run(process.foreign("dig", "@127.0.0.1", "-p", own_ports.v4, "b.zone.test"))
        has_head(between, "NOERROR", "qr aa rd", 0, 1)
        matches("zone%.test%.%s+30%s+IN%s+SOA", between)
        assert.equal("", complaints_of(own))
      end)
    end))

    it("names each malformed line", support.with_loop(function()
      with_zone(soa .. "a.zone.test 60 A\n" .. "a.zone.test 60 A 1.2.3\n" .. "a.zone.test 60 A ::1\n" .. "# fine\n"
        .. "a.zone.test 60 AAAA 192.0.2.1\n" .. "a.zone.test soon A 192.0.2.1\n" .. "a.zone.test -1 A 192.0.2.1\n"
        .. "a.zone.test 60 MX 192.0.2.1\n" .. "a..zone.test 60 A 192.0.2.1\n" .. 'a.zone.test 60 TXT "open\n'
        .. 'a.zone.test 60 TXT "a" b\n' .. "zone.test 60 SOA a b 1 2 3\n" .. "zone.test 60 SOA a b 1 2 3 4 x\n"
        .. "other.test 60 A 192.0.2.1\n" .. soa, function(path)
        local output, errors, code = run_example("dns_server", "--zone", path, "--port", "0")
        assert.equal(1, code)
        assert.equal("", output)
        local lines = {}
        for file, number in errors:gmatch("dns_server%.lua: ([^\n]-):(%d+): [^\n]+\n") do
          assert.equal(path, file)
          lines[tonumber(number)] = true
        end
        for number = 1, 16 do
          assert.equal(number ~= 1 and number ~= 5 or nil, lines[number], "line " .. number)
        end
      end)
    end))

    it("says that there is no SOA record", support.with_loop(function()
      with_zone("a.zone.test 60 A 192.0.2.1\n", function(path)
        local _, errors, code = run_example("dns_server", "--zone", path, "--port", "0")
        assert.equal(1, code)
        assert.equal(("dns_server.lua: %s: no SOA record\n"):format(path), errors)
      end)
    end))
  end)
end)

describe("dns_lookup.lua", function()
  after_each(process.stop_all)

  it("asks our server for many names, and keeps their order", support.with_loop(function()
    local server <close>, ports = start_server("dns_server", "--port", "0")
    local output, errors, code = run_example("dns_lookup", "--port", ports.v4, "--type", "A,AAAA", "www.example.test",
      "NS.Example.Test.")
    assert.equal("", errors)
    assert.equal("www.example.test A 192.0.2.80\nwww.example.test A 192.0.2.81\n"
      .. "www.example.test AAAA 2001:db8::80\nNS.Example.Test. A 127.0.0.1\nNS.Example.Test. AAAA ::1\n", output)
    assert.equal(0, code)
    local names = {}
    for i = 1, 200 do
      names[i] = i % 2 == 0 and "mail.example.test" or ("n%d.example.test"):format(i)
    end
    output, errors, code = run_example("dns_lookup", "--port", ports.v4, table.unpack(names))
    assert.equal("", errors)
    assert.equal(1, code)
    local i = 0
    for line in output:gmatch("[^\n]+") do
      i = i + 1
      assert.equal(names[i] .. (i % 2 == 0 and " A 192.0.2.25" or " A failed: NXDOMAIN"), line)
    end
    assert.equal(200, i)
    assert.is_true(server:is_running())
  end, 30))

  it("asks over v6", support.with_loop(function()
    if not need_v6() then return end
    local server <close>, ports = start_server("dns_server", "--port", "0")
    local output = run_example("dns_lookup", "--server", "::1", "--port", ports.v6, "v6.example.test", "--type=aaaa")
    assert.equal("v6.example.test AAAA 2001:db8::6\n", output)
    assert.is_true(server:is_running())
  end))

  it("reports truncation, and what there is not", support.with_loop(function()
    local server <close>, ports = start_server("dns_server", "--port", "0")
    local function lookup(...)
      local output, _, code = run_example("dns_lookup", "--port", ports.v4, ...)
      return output, code
    end
    local output, code = lookup("--type", "TXT", "--size", "0", "long.example.test")
    assert.equal("long.example.test TXT failed: the answer is truncated (TC)\n", output)
    assert.equal(1, code)
    output, code = lookup("--type", "TXT", "long.example.test")
    matches('^long%.example%.test TXT "a text of many strings', output)
    assert.equal(0, code)
    output, code = lookup("--type", "A,AAAA", "v6.example.test", "example.com")
    assert.equal("v6.example.test A failed: no such record\nv6.example.test AAAA 2001:db8::6\n"
      .. "example.com A failed: REFUSED\nexample.com AAAA failed: REFUSED\n", output)
    assert.equal(1, code)
    assert.is_true(server:is_running())
  end))

  -- Starts dnsmasq on a free port; it may be taken by the time that it is there, so it is tried again.
  local function start_dnsmasq()
    for _ = 1, 5 do
      local port = support.dead_port()
      local dnsmasq = process.start(process.foreign("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-hosts",
        "--no-resolv", "--port=" .. port, "--listen-address=127.0.0.1", "--bind-interfaces", "--user=root",
        "--pid-file", "--local=/example.test/", "--host-record=www.example.test,192.0.2.1,2001:db8::1",
        "--txt-record=text.example.test,hello world,and more", "--cname=alias.example.test,www.example.test",
        "--cname=second.example.test,alias.example.test"))
      local ok, err = pcall(dnsmasq.wait_for, dnsmasq, "started, version")
      if ok then return dnsmasq, port end
      dnsmasq:stop()
      if not tostring(err):find("in use") then error(err, 0) end
    end
    error("no free port for dnsmasq")
  end

  it("asks dnsmasq", support.with_loop(function()
    if not need_program("dnsmasq") then return end
    local dnsmasq <close>, port = start_dnsmasq()
    local function lookup(...)
      local output, _, code = run_example("dns_lookup", "--port", port, ...)
      return output, code
    end
    local output, code = lookup("--type", "A,AAAA", "www.example.test", "WWW.EXAMPLE.TEST", "second.example.test")
    assert.equal("www.example.test A 192.0.2.1\nwww.example.test AAAA 2001:db8::1\n"
      .. "WWW.EXAMPLE.TEST A 192.0.2.1\nWWW.EXAMPLE.TEST AAAA 2001:db8::1\n"
      .. "second.example.test A 192.0.2.1\nsecond.example.test AAAA 2001:db8::1\n", output)
    assert.equal(0, code)
    assert.equal('text.example.test TXT "hello world" "and more"\n', (lookup("--type", "TXT", "text.example.test")))
    output, code = lookup("nope.example.test")
    assert.equal("nope.example.test A failed: NXDOMAIN\n", output)
    assert.equal(1, code)
    assert.equal("www.example.test A 192.0.2.1\n", (lookup("--size", "0", "www.example.test")))
    assert.is_true(dnsmasq:is_running())
  end))

  -- The answer of a server to a query: one A record, and what the caller changes.
  local function answer_to(data, changes)
    local message = assert(dns.parse(ip.byte_span.append(data)))
    changes = changes or {}
    local asked = data:sub(dns.HEADER_SIZE + 1, message.questions_end)
    local record = string.pack(">I2 I2 I4 s2", changes.type or 1, 1, 60, changes.data or "\192\0\2\9")
    return header(changes.id or message.id, changes.flags or 0x8180, 1, 1) .. (changes.question or asked)
      .. (changes.owner or "\xC0\x0C") .. record
  end

  local function ask_fake(serve, ...)
    local words = { ... }
    return run_against(serve, function(port)
      return example("dns_lookup", "--port", port, table.unpack(words))
    end)
  end

  it("asks again from another port when no answer comes", support.with_loop(function()
    local ports, ids = {}, {}
    local output, _, code = ask_fake(function(sock)
      for try = 1, 3 do
        local data, address, port = sock:receive_string()
        ports[port], ids[try] = true, data:sub(1, 2)
        if try == 3 then sock:send_to(answer_to(data), address, port) end
      end
    end, "--timeout", "0.3", "--tries", "3", "host.test")
    assert.equal("host.test A 192.0.2.9\n", output)
    assert.equal(0, code)
    local count = 0
    for _ in pairs(ports) do count = count + 1 end
    assert.truthy(count >= 2) -- of three; the system may choose one twice
    assert.is_false(ids[1] == ids[2] and ids[2] == ids[3])
  end))

  it("gives up after --tries", support.with_loop(function()
    local queries = 0
    local output, _, code = ask_fake(function(sock)
      while true do
        sock:receive_string()
        queries = queries + 1
      end
    end, "--timeout", "0.1", "--tries", "2", "host.test")
    assert.equal("host.test A failed: no answer in 2 tries\n", output)
    assert.equal(1, code)
    assert.equal(2, queries)
  end))

  it("passes over what is not the answer", support.with_loop(function()
    local output, _, code = ask_fake(function(sock)
      local data, address, port = sock:receive_string()
      local function reply(text) sock:send_to(text, address, port) end
      local id = string.unpack(">I2", data)
      reply("")
      reply("no DNS")
      reply(data) -- a query is no answer
      reply(answer_to(data, { id = id ~ 1, data = "\192\0\2\66" }))
      reply(answer_to(data, { question = dns.name_from_text("evil.test") .. a_in, data = "\192\0\2\66" }))
      reply(answer_to(data, { question = dns.name_from_text("host.test") .. "\0\28\0\1", data = "\192\0\2\66" }))
      reply(answer_to(data, { owner = "\xC0\x1B", data = "\192\0\2\66" })) -- points to itself
      reply(answer_to(data, { type = dns.type.CNAME, data = "\xC0\x0Cx" })) -- more than a name
      reply(answer_to(data):sub(1, -2))
      reply(header(id, 0x8180, 0)) -- no question, and no error either
      reply(answer_to(data, { question = dns.name_from_text("HOST.test") .. a_in }))
    end, "--timeout", "5", "--tries", "1", "host.test")
    assert.equal("host.test A 192.0.2.9\n", output)
    assert.equal(0, code)
  end))

  it("takes no record of another name or with malformed data", support.with_loop(function()
    local function replies_with(changes)
      return ask_fake(function(sock)
        local data, address, port = sock:receive_string()
        sock:send_to(answer_to(data, changes), address, port)
      end, "--timeout", "5", "--tries", "1", "host.test")
    end
    assert.equal("host.test A failed: no such record\n", (replies_with { owner = dns.name_from_text("evil.test") }))
    assert.equal("host.test A failed: no such record\n", (replies_with { data = "\1\2\3" }))
    assert.equal("host.test A failed: SERVFAIL\n", (replies_with { flags = 0x8182, owner = "\0" }))
    assert.equal("host.test A 192.0.2.9\nhost.test A failed: the answer is truncated (TC)\n",
      (replies_with { flags = 0x8380 }))
  end))

  it("says that a server does not understand, though the question does not come back", support.with_loop(function()
    local output = ask_fake(function(sock)
      local data, address, port = sock:receive_string()
      sock:send_to(header(string.unpack(">I2", data), 0x8181, 0), address, port)
    end, "--timeout", "5", "host.test")
    assert.equal("host.test A failed: FORMERR\n", output)
  end))

  it("says that nobody listens", support.with_loop(function()
    local output, _, code = run_example("dns_lookup", "--port", support.dead_port(), "a.test", "b.test")
    assert.equal("a.test A failed: connection refused (ECONNREFUSED)\n"
      .. "b.test A failed: connection refused (ECONNREFUSED)\n", output)
    assert.equal(1, code)
  end))

  it("resolves not more at once than --concurrency", support.with_loop(function()
    local most_at_once = 0
    local output, _, code = ask_fake(function(sock)
      local waiting = {}
      sock.receive_timeout = 0.2
      while true do
        local ok, data, address, port = pcall(sock.receive_string, sock)
        if ok then
          waiting[#waiting + 1] = { answer_to(data), address, port }
          most_at_once = math.max(most_at_once, #waiting)
        elseif data == ip.error.ETIMEDOUT then -- all that are asked at once have come
          for _, each in ipairs(waiting) do
            sock:send_to(table.unpack(each))
          end
          waiting = {}
        else
          error(data, 0)
        end
      end
    end, "--concurrency", "3", "--timeout", "5", "a.test", "b.test", "c.test", "d.test", "e.test", "f.test", "g.test")
    assert.equal(0, code)
    assert.equal(3, most_at_once)
    assert.equal("abcdefg", (output:gsub("%.test A 192%.0%.2%.9\n", "")))
  end))
end)
