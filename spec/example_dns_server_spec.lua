-- What dns_server.lua promises: asked by dig, with malformed datagrams, and with zone files.
local messages = require "examples.dns_message"
local ip = require "ip"
local support = require "spec.support"
local dns = require "spec.support.dns"
local examples = require "spec.support.examples"
local platform = require "spec.support.platform"
local process = require "spec.support.process"

local with_loop = support.with_loop
local run_example, start_server = examples.run, examples.start_server
local it_where = platform.it_where
local has_dig = process.exists("dig")
local it_dig = it_where(has_dig, "dig")
local header = dns.header

local www = messages.name_from_text("www.example.test")

-- A query for www.example.test that is answered.
local function good_query(id)
  return dns.query(id, "www.example.test", "A")
end

-- What a server has written to stderr, but not that there is no v6, where there is none.
local function complaints_of(server)
  local errors = server:errors()
  return platform.has_v6 and errors or (errors:gsub("^dns_server%.lua: cannot listen on %[::1%][^\n]*\n", ""))
end

describe("dns_server.lua", function()
  local server, port, v6_port

  setup(function()
    server, port, v6_port = start_server("dns_server", "--port", "0")
  end)
  teardown(process.stop_all)

  local function dig(...)
    local output, _, code = process.run(process.foreign("dig", "@127.0.0.1", "-p", port, "+tries=1", "+time=5",
      "+ignore", "+notcp", ...))
    assert.equal(0, code)
    return output
  end

  -- Is the answer to dig's question `status`, with these flags and as many answers and authorities?
  local function has_head(output, status, flags, answers, authorities)
    assert.matches("status: " .. status .. ",", output)
    assert.matches(("flags: %s; QUERY: 1, ANSWER: %d, AUTHORITY: %d,"):format(flags, answers, authorities), output)
  end

  describe("asked by dig", function()
    it_dig("answers A", with_loop(function()
      local output = dig("www.example.test")
      has_head(output, "NOERROR", "qr aa rd", 2, 0)
      assert.matches("www%.example%.test%.%s+300%s+IN%s+A%s+192%.0%.2%.80", output)
      assert.matches("www%.example%.test%.%s+300%s+IN%s+A%s+192%.0%.2%.81", output)
    end))

    it_dig("answers AAAA", with_loop(function()
      local output = dig("www.example.test", "AAAA")
      has_head(output, "NOERROR", "qr aa rd", 1, 0)
      assert.matches("IN%s+AAAA%s+2001:db8::80", output)
    end))

    it_dig("answers TXT, long texts in pieces of 255 bytes", with_loop(function()
      assert.matches('IN%s+TXT%s+"one string" "and another"', dig("text.example.test", "TXT"))
      local whole = dig("+short", "long.example.test", "TXT"):gsub('" "', ""):match('"(.*)"')
      assert.equal(("a text of many strings "):rep(40):sub(1, -2), (whole:gsub("%s+$", "")))
    end))

    it_dig("answers SOA", with_loop(function()
      assert.matches("3600%s+IN%s+SOA%s+ns%.example%.test%. hostmaster%.example%.test%. 1 7200 900 1209600 300",
        dig("example.test", "SOA"))
    end))

    it_dig("says NXDOMAIN, with SOA", with_loop(function()
      local output = dig("no.such.example.test")
      has_head(output, "NXDOMAIN", "qr aa rd", 0, 1)
      assert.matches("\nexample%.test%.%s+300%s+IN%s+SOA%s+ns%.example%.test%.", output)
    end))

    it_dig("says that a name has no such record, with SOA", with_loop(function()
      local output = dig("mail.example.test", "AAAA")
      has_head(output, "NOERROR", "qr aa rd", 0, 1)
      assert.matches("\nexample%.test%.%s+300%s+IN%s+SOA%s+ns%.example%.test%.", output)
    end))

    it_dig("refuses other zones and classes", with_loop(function()
      has_head(dig("www.example.com"), "REFUSED", "qr rd", 0, 0)
      has_head(dig("test"), "REFUSED", "qr rd", 0, 0)
      has_head(dig("notexample.test"), "REFUSED", "qr rd", 0, 0)
      has_head(dig("www.example.test", "CH", "A"), "REFUSED", "qr rd", 0, 0)
    end))

    it_dig("gives one kind of records for ANY", with_loop(function()
      local output = dig("www.example.test", "ANY")
      has_head(output, "NOERROR", "qr aa rd", 2, 0)
      assert.falsy(output:find("AAAA"))
    end))

    it_dig("looks at no case, and gives the question back as it came", with_loop(function()
      assert.matches("\nWwW%.EXAMPLE%.Test%.%s+300%s+IN%s+A%s+192%.0%.2%.80", dig("WwW.EXAMPLE.Test"))
      has_head(dig("NOPE.EXAMPLE.TEST"), "NXDOMAIN", "qr aa rd", 0, 1)
    end))

    it_dig("answers OPT with OPT, and no OPT with none", with_loop(function()
      assert.matches("EDNS: version: 0, flags:; udp: 1232", dig("www.example.test"))
      local plain = dig("www.example.test", "+noedns")
      assert.falsy(plain:find("EDNS"))
      has_head(plain, "NOERROR", "qr aa rd", 2, 0)
      has_head(dig("www.example.test", "+edns=1", "+noednsneg"), "BADVERS", "qr rd", 0, 0)
    end))

    it_dig("says that an answer is too large for plain DNS, or for the size in OPT", with_loop(function()
      has_head(dig("long.example.test", "TXT", "+noedns"), "NOERROR", "qr aa tc rd", 0, 0)
      has_head(dig("long.example.test", "TXT", "+bufsize=700"), "NOERROR", "qr aa tc rd", 0, 0)
      has_head(dig("long.example.test", "TXT", "+bufsize=100"), "NOERROR", "qr aa tc rd", 0, 0)
      has_head(dig("www.example.test", "+bufsize=60"), "NOERROR", "qr aa rd", 2, 0) -- less than 512 counts as 512
      has_head(dig("long.example.test", "TXT", "+bufsize=4096"), "NOERROR", "qr aa rd", 1, 0)
    end))

    it_dig("says NOTIMP to other operations", with_loop(function()
      assert.matches("opcode: STATUS, status: NOTIMP", dig("www.example.test", "+opcode=status"))
    end))

    it_where(has_dig and platform.has_v6, "dig and v6")("answers over v6", with_loop(function()
      local output = process.run(process.foreign("dig", "@::1", "-p", v6_port, "+tries=1", "+time=5",
        "v6.example.test", "AAAA"))
      assert.matches("IN%s+AAAA%s+2001:db8::6", output)
    end))
  end)

  -- Sends a datagram and, behind it, a good query. Returns the response code of the answer to the former, or
  -- nil where there is none: the answer to the latter has come first then.
  local function response_to(datagram)
    local sock <close> = ip.udp.connect("127.0.0.1", port, { receive_timeout = 5 })
    sock:send(datagram)
    sock:send(good_query(2))
    local code
    while true do
      local answer = assert(messages.parse(ip.byte_span.append((sock:receive_string()))))
      assert.is_true(answer.is_response)
      if answer.id == 2 then
        assert.equal(2, #answer.answers)
        return code
      end
      code = messages.rcode_name(answer.rcode)
    end
  end

  local question = www .. dns.A_IN
  local opt = messages.opt_record(1232)
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
    { "a name that points to itself", header(1, 0, 1) .. "\xC0\x0C" .. dns.A_IN, "FORMERR" },
    { "a name that points to its own begin", header(1, 0, 1) .. "\3www\xC0\x0C" .. dns.A_IN, "FORMERR" },
    { "a name that points ahead", header(1, 0, 1) .. "\xC0\x12" .. dns.A_IN .. www, "FORMERR" },
    { "a name that points into the header", header(1, 0, 1) .. "\xC0\x04" .. dns.A_IN, "FORMERR" },
    { "a name that points behind the end", header(1, 0, 1) .. "\xFF\xFF" .. dns.A_IN, "FORMERR" },
    { "half a pointer", header(1, 0, 1) .. "\xC0", "FORMERR" },
    { "a label of 64 bytes", header(1, 0, 1) .. "\64" .. ("x"):rep(64) .. "\0" .. dns.A_IN, "FORMERR" },
    { "a label of a reserved kind", header(1, 0, 1) .. "\x80abc\0" .. dns.A_IN, "FORMERR" },
    { "a name of 256 bytes", header(1, 0, 1) .. ("\62" .. ("x"):rep(62)):rep(4) .. "\2ab\0" .. dns.A_IN, "FORMERR" },
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
    { "the root", header(1, 0, 1) .. "\0" .. dns.A_IN, "REFUSED" },
  }

  for _, case in ipairs(malformed) do
    local what, datagram, expected = table.unpack(case, 1, 3)
    it(("%s %s"):format(expected and "says " .. expected .. " to" or "is silent to", what),
      with_loop(function()
        assert.equal(expected, response_to(datagram))
      end))
  end

  it("takes a name of 255 bytes", with_loop(function()
    local name = ("\60" .. ("x"):rep(60)):rep(3) .. "\57" .. ("x"):rep(57) .. messages.name_from_text("example.test")
    assert.equal(255, #name)
    assert.equal("NXDOMAIN", response_to(header(1, 0, 1) .. name .. dns.A_IN))
  end))

  it("survives a thousand random datagrams", with_loop(function()
    local sock <close> = ip.udp.connect("127.0.0.1", port)
    math.randomseed(1035) -- the same datagrams on every run
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
      local path = support.write_file(text)
      local ok, err = pcall(fn, path)
      os.remove(path)
      if not ok then error(err, 0) end
    end

    local soa = "zone.test 60 SOA ns.zone.test. admin.zone.test. 7 1 2 3 30\n"

    it_dig("serves it", with_loop(function()
      with_zone("# a comment\r\n\n" .. soa .. "  # another\n"
        .. "Host.Zone.Test.  60  a  192.0.2.7\n"
        .. "host.zone.test\t60\tAAAA\t2001:db8::7\r\n"
        .. "a.b.zone.test 60 TXT no quotes # and all of it  \n"
        .. 'q.zone.test 60 TXT "say \\"hi\\"" "" "back\\\\slash"\n'
        .. "long.zone.test 60 TXT " .. ("y"):rep(300) .. "\n"
        .. "w\\.w\\065.zone.test 60 A 192.0.2.8\n", function(path)
        local own <close>, own_port = start_server("dns_server", "--zone", path, "--port=0")
        local function short(...)
          return (process.run(process.foreign("dig", "@127.0.0.1", "-p", own_port, "+tries=1", "+time=5",
            "+short", ...)))
        end
        assert.equal("192.0.2.7\n", short("host.zone.test"))
        assert.equal("2001:db8::7\n", short("host.zone.test", "AAAA"))
        assert.equal('"no quotes # and all of it"\n', short("a.b.zone.test", "TXT"))
        assert.equal('"say \\"hi\\"" "" "back\\\\slash"\n', short("q.zone.test", "TXT"))
        assert.equal(('"%s" "%s"\n'):format(("y"):rep(255), ("y"):rep(45)), short("long.zone.test", "TXT"))
        assert.equal("192.0.2.8\n", short("W\\.wa.zone.test"))
        local between = process.run(process.foreign("dig", "@127.0.0.1", "-p", own_port, "b.zone.test"))
        has_head(between, "NOERROR", "qr aa rd", 0, 1)
        assert.matches("zone%.test%.%s+30%s+IN%s+SOA", between)
        assert.equal("", complaints_of(own))
      end)
    end))

    it("names each malformed line", with_loop(function()
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

    it("says that there is no SOA record", with_loop(function()
      with_zone("a.zone.test 60 A 192.0.2.1\n", function(path)
        local _, errors, code = run_example("dns_server", "--zone", path, "--port", "0")
        assert.equal(1, code)
        assert.equal(("dns_server.lua: %s: no SOA record\n"):format(path), errors)
      end)
    end))
  end)
end)
