-- What dns_lookup.lua promises: asking our server, dnsmasq, and servers that misbehave.
local messages = require "examples.dns_message"
local ip = require "ip"
local support = require "spec.support"
local dns = require "spec.support.dns"
local examples = require "spec.support.examples"
local platform = require "spec.support.platform"
local process = require "spec.support.process"

local with_loop = support.with_loop
local example, run_example, start_server = examples.words, examples.run, examples.start_server
local header = dns.header

describe("dns_lookup.lua", function()
  after_each(process.stop_all)

  it("asks our server for many names, and keeps their order", with_loop(function()
    local server <close>, port = start_server("dns_server", "--port", "0")
    local output, errors, code = run_example("dns_lookup", "--port", port, "--type", "A,AAAA", "www.example.test",
      "NS.Example.Test.")
    assert.equal("", errors)
    assert.equal("www.example.test A 192.0.2.80\nwww.example.test A 192.0.2.81\n"
      .. "www.example.test AAAA 2001:db8::80\nNS.Example.Test. A 127.0.0.1\nNS.Example.Test. AAAA ::1\n", output)
    assert.equal(0, code)
    local names = {}
    for i = 1, 200 do
      names[i] = i % 2 == 0 and "mail.example.test" or ("n%d.example.test"):format(i)
    end
    output, errors, code = run_example("dns_lookup", "--port", port, table.unpack(names))
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

  platform.it_v6("asks over v6", with_loop(function()
    local server <close>, _, v6_port = start_server("dns_server", "--port", "0")
    local output = run_example("dns_lookup", "--server", "::1", "--port", v6_port, "v6.example.test", "--type=aaaa")
    assert.equal("v6.example.test AAAA 2001:db8::6\n", output)
    assert.is_true(server:is_running())
  end))

  it("reports truncation, and what there is not", with_loop(function()
    local server <close>, port = start_server("dns_server", "--port", "0")
    local function lookup(...)
      local output, _, code = run_example("dns_lookup", "--port", port, ...)
      return output, code
    end
    local output, code = lookup("--type", "TXT", "--size", "0", "long.example.test")
    assert.equal("long.example.test TXT failed: the answer is truncated (TC)\n", output)
    assert.equal(1, code)
    output, code = lookup("--type", "TXT", "long.example.test")
    assert.matches('^long%.example%.test TXT "a text of many strings', output)
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

  platform.it_where(process.exists("dnsmasq"), "dnsmasq")("asks dnsmasq", with_loop(function()
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
    local message = assert(messages.parse(ip.byte_span.append(data)))
    changes = changes or {}
    local asked = data:sub(messages.HEADER_SIZE + 1, message.questions_end)
    local record = string.pack(">I2 I2 I4 s2", changes.type or 1, 1, 60, changes.data or "\192\0\2\9")
    return header(changes.id or message.id, changes.flags or 0x8180, 1, 1) .. (changes.question or asked)
      .. (changes.owner or "\xC0\x0C") .. record
  end

  local function ask_fake(serve, ...)
    local words = { ... }
    return examples.run_against(serve, function(port)
      return example("dns_lookup", "--port", port, table.unpack(words))
    end)
  end

  it("asks again from another port when no answer comes", with_loop(function()
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

  it("gives up after --tries", with_loop(function()
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

  it("passes over what is not the answer", with_loop(function()
    local output, _, code = ask_fake(function(sock)
      local data, address, port = sock:receive_string()
      local function reply(text) sock:send_to(text, address, port) end
      local id = string.unpack(">I2", data)
      reply("")
      reply("no DNS")
      reply(data) -- a query is no answer
      reply(answer_to(data, { id = id ~ 1, data = "\192\0\2\66" }))
      reply(answer_to(data, { question = messages.name_from_text("evil.test") .. dns.A_IN, data = "\192\0\2\66" }))
      reply(answer_to(data, { question = messages.name_from_text("host.test") .. "\0\28\0\1", data = "\192\0\2\66" }))
      reply(answer_to(data, { owner = "\xC0\x1B", data = "\192\0\2\66" })) -- points to itself
      reply(answer_to(data, { type = messages.type.CNAME, data = "\xC0\x0Cx" })) -- more than a name
      reply(answer_to(data):sub(1, -2))
      reply(header(id, 0x8180, 0)) -- no question, and no error either
      reply(answer_to(data, { question = messages.name_from_text("HOST.test") .. dns.A_IN }))
    end, "--timeout", "5", "--tries", "1", "host.test")
    assert.equal("host.test A 192.0.2.9\n", output)
    assert.equal(0, code)
  end))

  it("takes no record of another name or with malformed data", with_loop(function()
    local function replies_with(changes)
      return ask_fake(function(sock)
        local data, address, port = sock:receive_string()
        sock:send_to(answer_to(data, changes), address, port)
      end, "--timeout", "5", "--tries", "1", "host.test")
    end
    local another = messages.name_from_text("evil.test")
    assert.equal("host.test A failed: no such record\n", (replies_with { owner = another }))
    assert.equal("host.test A failed: no such record\n", (replies_with { data = "\1\2\3" }))
    assert.equal("host.test A failed: SERVFAIL\n", (replies_with { flags = 0x8182, owner = "\0" }))
    assert.equal("host.test A 192.0.2.9\nhost.test A failed: the answer is truncated (TC)\n",
      (replies_with { flags = 0x8380 }))
  end))

  it("says that a server does not understand, though the question does not come back", with_loop(function()
    local output = ask_fake(function(sock)
      local data, address, port = sock:receive_string()
      sock:send_to(header(string.unpack(">I2", data), 0x8181, 0), address, port)
    end, "--timeout", "5", "host.test")
    assert.equal("host.test A failed: FORMERR\n", output)
  end))

  it("says that nobody listens", with_loop(function()
    local output, _, code = run_example("dns_lookup", "--port", support.dead_port(), "a.test", "b.test")
    assert.equal("a.test A failed: connection refused (ECONNREFUSED)\n"
      .. "b.test A failed: connection refused (ECONNREFUSED)\n", output)
    assert.equal(1, code)
  end))

  it("resolves not more at once than --concurrency", with_loop(function()
    local most_at_once = 0
    local output, _, code = ask_fake(function(sock)
      local waiting = {}
      for i = 1, 7 do
        local data, address, port = sock:receive_string()
        waiting[#waiting + 1] = { answer_to(data), address, port }
        if #waiting == 3 or i == 7 then
          ip.fiber.sleep(0.2) -- gives a fourth question the time to come, which there must not be
          most_at_once = math.max(most_at_once, #waiting + (sock:io_control("bytes_readable") > 0 and 1 or 0))
          for _, each in ipairs(waiting) do
            sock:send_to(table.unpack(each))
          end
          waiting = {}
        end
      end
    end, "--concurrency", "3", "--timeout", "5", "a.test", "b.test", "c.test", "d.test", "e.test", "f.test", "g.test")
    assert.equal(0, code)
    assert.equal(3, most_at_once)
    assert.equal("abcdefg", (output:gsub("%.test A 192%.0%.2%.9\n", "")))
  end))
end)
