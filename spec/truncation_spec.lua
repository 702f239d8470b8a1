-- What socket.on_truncation promises.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local batches = require "spec.support.batches"
local support = require "spec.support"

local fiber, udp, byte_span, flag = ip.fiber, ip.udp, ip.byte_span, ip.message_flag
local with_loop, pair, suspended, error_of = support.with_loop, support.pair, support.suspended, support.error_of
local assert_raises = assertions.assert_raises

-- The arguments of the receives, with a buffer of `size` bytes.
local function receives(size)
  return {
    receive = { byte_span.new(size) },
    receive_from = { byte_span.new(size) },
    receive_string = { size },
    receive_message = { byte_span.new(size) },
    try_receive = { byte_span.new(size) },
    try_receive_from = { byte_span.new(size) },
    try_receive_string = { size },
    try_receive_message = { byte_span.new(size) },
  }
end

-- A connected pair, the second of which raises.
local function raising_pair(options)
  local a, b = pair()
  b.on_truncation = "raise"
  for name, value in pairs(options or {}) do b:set_option(name, value) end
  return a, b
end

describe("on_truncation", function()
  it("is \"report\" unless it is set, and keeps its value over close and open", with_loop(function()
    local sock = ip.udp.socket.new()
    assert.equal("report", sock.on_truncation)
    sock.on_truncation = "raise"
    assert.equal("raise", sock.on_truncation)
    sock:bind("127.0.0.1", 0)
    assert.equal("raise", sock.on_truncation)
    sock:close()
    assert.equal("raise", sock.on_truncation)
    sock.on_truncation = "report"
    assert.equal("report", sock.on_truncation)
  end))

  it("takes no other value", function()
    local sock = ip.udp.socket.new()
    for _, value in ipairs { "ignore", "", true, 1, {} } do
      assert.is_false(pcall(function() sock.on_truncation = value end))
    end
    assert.is_false(pcall(function() sock.on_truncation = nil end))
    assert.equal("report", sock.on_truncation)
  end)

  it("is an option of bind and connect", with_loop(function()
    local server <close> = udp.bind("127.0.0.1", 0, { on_truncation = "raise" })
    local client <close> = udp.connect("127.0.0.1", server.local_port, { on_truncation = "raise" })
    assert.same({ "raise", "raise" }, { server.on_truncation, client.on_truncation })
    client:send("long")
    assert_raises("EMSGSIZE", "receive_string", server.receive_string, server, 3)
    assertions.assert_message("on_truncation", udp.bind, "127.0.0.1", 0, { on_truncation = "never" })
  end))

  it("\"report\" reports", with_loop(function()
    local a, b = pair()
    for name, arguments in pairs(receives(2)) do
      a:send("long")
      local results = table.pack(b[name](b, table.unpack(arguments)))
      local last = results[results.n]
      assert.is_true(type(last) == "table" and last.truncated or last, name)
    end
    a:close() b:close()
  end))

  it("\"raise\" raises EMSGSIZE from each receive that cuts, and the datagram is gone", with_loop(function()
    local a, b = raising_pair()
    for name, arguments in pairs(receives(2)) do
      a:send("long")
      a:send("ok")
      local err = assert_raises("EMSGSIZE", name, b[name], b, table.unpack(arguments))
      assert.is_nil(err.mtu)
      assert.equal("ok", (b:receive_string()))
    end
    a:close() b:close()
  end))

  it("\"raise\" raises from a receive that waits, and from it alone", with_loop(function()
    local a, b = raising_pair()
    for _, name in ipairs { "receive", "receive_from", "receive_string", "receive_message" } do
      local cut = suspended(b, name, table.unpack(receives(2)[name]))
      local whole = suspended(b, "receive_string")
      a:send("long")
      a:send("next")
      local ok, err = cut:join()
      assert.same({ false, "EMSGSIZE", name }, { ok, err.name, err.operation })
      assert.equal("next", (select(2, whole:join())))
    end
    a:close() b:close()
  end))

  it("\"raise\" raises nothing where the datagram fits, and nothing for an empty buffer", with_loop(function()
    local a, b = raising_pair()
    for name, arguments in pairs(receives(4)) do
      a:send("fits")
      a:send("")
      assert.is_truthy((b[name](b, table.unpack(arguments))), name)
      assert.is_truthy((b[name](b, table.unpack(arguments))), name)
    end
    for name, arguments in pairs(receives(0)) do
      a:send("any")
      assert.is_truthy((b[name](b, table.unpack(arguments))), name)
    end
    local waiting = suspended(b, "receive", byte_span.new(0))
    a:send("any")
    assert.same({ true, 0, true }, { waiting:join() })
    a:close() b:close()
  end))

  it("\"raise\" with peek leaves the datagram in the socket", with_loop(function()
    local a, b = raising_pair()
    a:send("long")
    assert_raises("EMSGSIZE", "receive_string", b.receive_string, b, 2, flag.peek)
    assert_raises("EMSGSIZE", "try_receive", b.try_receive, b, byte_span.new(2), flag.peek)
    assert.equal("long", (b:receive_string()))
    a:close() b:close()
  end))

  for _, name in ipairs { "coalesce", "receive_offload" } do
    it(("\"raise\" keeps to datagrams with %s"):format(name), with_loop(function()
      local a, b = raising_pair { [name] = true }
      a:send_message("longlongok", { segment_size = 4 })
      assert_raises("EMSGSIZE", "receive_string", b.receive_string, b, 2)
      assert.equal("long", (b:receive_string(4)))
      assert.equal("ok", (b:receive_string(2)))
      a:close() b:close()
    end))
  end

  it("\"raise\" leaves batches alone, which mark their entries", with_loop(function()
    local a, b = raising_pair()
    a:send("long")
    a:send("ok")
    local batch = udp.batch.new(3, 2)
    assert.equal(2, b:receive_many(batch))
    assert.same({ "lo", "ok" }, batches.contents(batch))
    assert.same({ true, false }, { (select(4, batch:get(1))), (select(4, batch:get(2))) })
    a:send("long")
    assert.equal(1, b:try_receive_many(batch))
    a:close() b:close()
  end))

  it("\"raise\" raises out of loops", with_loop(function()
    local a, b = raising_pair()
    a:send("long")
    local err = error_of(function()
      for _ in b:datagrams { capacity = 2 } do error("a cut datagram was delivered") end
    end)
    assert.same({ "EMSGSIZE", "datagrams" }, { err.name, err.operation })
    local loop = fiber.spawn(pcall, b.receive_loop, b, function() end, { capacity = 2 })
    fiber.yield()
    a:send("long")
    local _, raised = loop:join()
    assert.same({ "EMSGSIZE", "receive_loop" }, { raised.name, raised.operation })
    a:close() b:close()
  end))

  it("may be changed while a receive waits", with_loop(function()
    local a, b = pair()
    local waiting = suspended(b, "receive_string", 2)
    b.on_truncation = "raise"
    a:send("long")
    assert.is_false((waiting:join()))
    a:close() b:close()
  end))
end)
