-- What the network may send: any size, floods, forged sources, packets that no protocol knows.

local ip = require "ip"
local examples = require "spec.support.examples"
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"

local fiber = ip.fiber

describe("hostile input #slow", function()
  after_each(process.stop_all)

  it("of every size from 0 to 65507 arrives whole", support.with_loop(function()
    local receiver <close>, port = support.bound()
    local sender <close> = ip.udp.connect("127.0.0.1", port)
    receiver:set_option("receive_buffer_size", 1 << 20)
    local out, span = ip.byte_span.new(65507), ip.byte_span.new(65507)
    out:fill(0x5a)
    local step = platform.is_watched and 97 or 1
    for size = 0, 65507, step do
      sender:send(out:resize(size))
      local n, truncated = receiver:receive(span:resize(65507))
      if n ~= size or truncated then error(("%d bytes came as %d"):format(size, n)) end
    end
    support.error_of(sender.send, sender, ("x"):rep(65508))
  end, 60))

  it("from forged sources never reaches a connected socket", support.with_loop(function()
    local a <close>, a_port = support.bound()
    local peer <close>, peer_port = support.bound()
    local forger <close> = support.bound()
    support.send(forger, a_port, "before connect")
    a:connect("127.0.0.1", peer_port)
    for _ = 1, 100 do support.send(forger, a_port, "forged") end
    support.send(peer, a_port, "genuine")
    assert.equal("genuine", (a:receive_string()))
    assert.same({ nil, ip.error.EAGAIN }, { a:try_receive(ip.byte_span.new(10)) })
  end))

  it("in a flood beyond the buffer costs no memory, and the socket goes on", support.with_loop(function()
    local receiver <close>, port = support.bound()
    local sender <close> = support.bound()
    receiver:set_option("receive_buffer_size", 4096)
    local before
    for round = 1, 20 do
      for _ = 1, 500 do support.send(sender, port, ("f"):rep(500)) end
      local span = ip.byte_span.new(1000)
      while receiver:try_receive(span) do end -- luacheck: ignore 542
      collectgarbage()
      if round == 5 then before = collectgarbage("count") end
    end
    assert.is_true(collectgarbage("count") < before + 20)
    support.send(sender, port, "after the flood")
    assert.equal("after the flood", (receiver:receive_string()))
  end, 30))

  -- A packet of noise; the first bytes are those of the protocols that the examples speak, in part.
  local function noise(seed)
    local state, bytes = seed * 7919 + 1, {}
    for i = 1, seed % 600 do
      state = (state * 1103515245 + 12345) & 0x7fffffff
      bytes[i] = string.char(state >> 16 & 255)
    end
    local text = table.concat(bytes)
    if seed % 3 == 0 then return "\0\1\1\0\0\1\0\0\0\0\0\0" .. text end -- a question of DNS, then noise
    if seed % 3 == 1 then return "\x23" .. text .. ("\xc0\x0c"):rep(seed % 20) end -- SNTP; pointers of DNS
    return text
  end

  for _, server in ipairs { "dns_server", "sntp_server", "echo_server" } do
    it("of no protocol does not end " .. server, support.with_loop(function()
      local running <close>, port = examples.start_server(server, "--port", "0")
      local sock <close> = ip.udp.connect("127.0.0.1", port)
      for seed = 1, 600 do
        sock:send(noise(seed))
        if seed % 20 == 0 then fiber.sleep(0.001) end
      end
      fiber.sleep(0.05)
      assert.is_true(running:is_running(), running:output() .. running:errors())
      assert.equal("", running:errors())
    end, 30))
  end

  it("in an answer ends a look-up with an error or a timeout, and not with a traceback", support.with_loop(function()
    for seed = 1, 6 do
      local server <close>, port = support.bound()
      local answering = fiber.spawn(pcall, function()
        while true do
          local text, address, from = server:receive_string()
          server:send_to(text:sub(1, 2) .. noise(seed), address, from)
        end
      end)
      local output, errors, code = examples.run("dns_lookup", "--server", "127.0.0.1", "--port", tostring(port),
        "www.example.test")
      assert.is_true(code == 0 or code == 1 or code == 2, output .. errors)
      assert.is_nil(errors:find("traceback", 1, true), errors)
      answering:interrupt()
      answering:join()
    end
  end, 60))
end)
