-- What tftp_server.lua promises, run as a process: to clients of others, and to one that makes mistakes.
local ip = require "ip"
local lfs = require "lfs"
local examples = require "spec.support.examples"
local pages = require "spec.support.pages"
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"

local with_loop = support.with_loop
local assert_help, assert_refused = examples.assert_help, examples.assert_refused

local RRQ, WRQ, DATA, ACK, ERROR, OACK = 1, 2, 3, 4, 5, 6

-- Bytes without a short period.
local function noise(count)
  local state, parts = 12345, {}
  for i = 1, (count + 3) // 4 do
    state = (state * 1103515245 + 12345) & 0x7fffffff
    parts[i] = string.pack("I4", state)
  end
  return table.concat(parts):sub(1, count)
end

local LARGE = noise(5000000)

local function write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
end

-- A directory of its own for files, which is removed with them.
local function new_directory()
  local path = os.tmpname()
  os.remove(path)
  assert(lfs.mkdir(path))
  return setmetatable({ path = path }, { __close = function()
    for name in lfs.dir(path) do os.remove(path .. "/" .. name) end
    assert(lfs.rmdir(path))
  end })
end

local function request(opcode, name, mode, ...)
  local words = { string.pack(">I2 zz", opcode, name, mode or "octet") }
  for _, word in ipairs { ... } do words[#words + 1] = word .. "\0" end
  return table.concat(words)
end

-- A server on files, and a client that has sent it nothing yet.
local function start(root, ...)
  local server, port = examples.start_server("tftp_server", "--root", root.path, "--port", "0", "--timeout", "0.1", ...)
  local client = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 10 })
  local function ask(text) client:send_to(text, "127.0.0.1", port) end
  return server, port, client, ask
end

local function receive(client)
  local text, _, port = client:receive_string()
  local opcode, number = string.unpack(">I2 I2", text)
  return opcode, number, text:sub(5), port, text
end

-- Fails unless the next packet of the server is an error with that code.
local function assert_error(code, client)
  local opcode, number = receive(client)
  assert.equal(ERROR, opcode)
  assert.equal(code, number)
end

local function send_block(client, port, number, data)
  client:send_to(string.pack(">I2 I2", DATA, number) .. data, "127.0.0.1", port)
end

local function ack(client, port, number)
  client:send_to(string.pack(">I2 I2", ACK, number), "127.0.0.1", port)
end

describe("tftp_server.lua", function()
  after_each(process.stop_all)

  it("has --help and refuses wrong arguments", with_loop(function()
    assert_help("tftp_server")
    assert_refused("tftp_server", "%-%-port 70000", "--port", "70000")
    assert_refused("tftp_server", "%-%-retries 0", "--retries", "0")
    assert_refused("tftp_server", "unexpected argument more", "more")
  end, 20))

  local function url(port, name) return ("tftp://127.0.0.1:%d/%s"):format(port, name) end

  -- The words of clients: to get a file of the server, and to put one there, from the directory of its files.
  local clients = {
    curl = {
      get = function(port, name, path) return { "curl", "-sS", "-o", path, url(port, name) } end,
      put = function(port, path, name) return { "curl", "-sS", "-T", path, url(port, name) } end,
    },
    tftp = {
      get = function(port, name, path) return { "tftp", "-m", "octet", "127.0.0.1", port, "-c", "get", name, path } end,
      put = function(port, path, name) return { "tftp", "-m", "octet", "127.0.0.1", port, "-c", "put", path, name } end,
    },
    atftp = {
      get = function(port, name, path)
        return { "atftp", "--option", "blksize 1428", "--option", "tsize 0", "--get", "-r", name, "-l", path,
          "127.0.0.1", port }
      end,
      put = function(port, path, name)
        return { "atftp", "--option", "blksize 8192", "--put", "-l", path, "-r", name, "127.0.0.1", port }
      end,
    },
  }

  local function run(words)
    local output, errors, code = process.run(process.foreign(table.unpack(words)), 60)
    assert.equal(0, code, output .. errors)
  end

  for name, words_for in pairs(clients) do
    platform.it_where(process.exists(name), name)("exchanges files of 5 MB with " .. name, with_loop(function()
      local root <close> = new_directory()
      local own <close> = new_directory()
      write(root.path .. "/large", LARGE)
      local server <close>, port = start(root, "--write")
      run(words_for.get(port, "large", own.path .. "/got"))
      assert.is_true(pages.read(own.path .. "/got") == LARGE)
      run(words_for.put(port, own.path .. "/got", "put"))
      server:wait_for('write "put": complete')
      assert.is_true(pages.read(root.path .. "/put") == LARGE)
    end, 60))
  end

  for name, words_for in pairs(clients) do
    platform.it_where(process.exists(name), name)("gives an empty file to " .. name, with_loop(function()
      local root <close> = new_directory()
      local own <close> = new_directory()
      write(root.path .. "/empty", "")
      local server <close>, port = start(root)
      run(words_for.get(port, "empty", own.path .. "/got"))
      server:wait_for('read "empty": complete')
    end, 20))
  end

  platform.it_where(process.exists("tftp"), "tftp")("converts text in netascii", with_loop(function()
    local root <close> = new_directory()
      local own <close> = new_directory()
    local text = ("one\ntwo\r\nthree\rfour\n"):rep(400)
    write(root.path .. "/text", text)
    local server <close>, port = start(root, "--write")
    run { "tftp", "-m", "ascii", "127.0.0.1", port, "-c", "get", "text", own.path .. "/got" }
    assert.equal(text, pages.read(own.path .. "/got"))
    run { "tftp", "-m", "ascii", "127.0.0.1", port, "-c", "put", own.path .. "/got", "put" }
    server:wait_for('write "put": complete')
    assert.equal(text, pages.read(root.path .. "/put"))
  end, 20))

  it("serves many clients at once, each from a port of its own", with_loop(function()
    local root <close> = new_directory()
    write(root.path .. "/file", noise(5000))
    local server <close>, port = start(root) -- luacheck: ignore server
    local ports, fibers = {}, {}
    for i = 1, 20 do
      fibers[i] = ip.fiber.spawn(function()
        local client <close> = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 10 })
        client:send_to(request(RRQ, "file"), "127.0.0.1", port)
        local parts = {}
        repeat
          local opcode, number, data, from = receive(client)
          assert.equal(DATA, opcode)
          parts[number] = data
          ports[from] = true
          ack(client, from, number)
        until #data < 512
        assert.equal(noise(5000), table.concat(parts))
      end)
    end
    for i = 1, 20 do fibers[i]:join() end
    local count = 0
    for _ in pairs(ports) do count = count + 1 end
    assert.equal(20, count)
    assert.is_nil(ports[port])
  end, 20))

  it("says what the system says of a file that it cannot read", with_loop(function()
    local server <close>, _, client, ask = start({ path = "." })
    for name, reason in pairs { spec = "Is a directory", nothing = "No such file or directory" } do
      ask(request(RRQ, name))
      local opcode, _, text = receive(client)
      assert.same({ ERROR, reason .. "\0" }, { opcode, text })
      server:wait_for(('read "%s": failed: refused: %s\n'):format(name, reason))
    end
  end, 20))

  it("agrees on the options that it knows, and ignores others", with_loop(function()
    local root <close> = new_directory()
    write(root.path .. "/file", noise(3000))
    local server <close>, _, client, ask = start(root) -- luacheck: ignore server
    ask(request(RRQ, "file", "OCTET", "tsize", "0", "colour", "red", "BLKSIZE", "2000", "timeout", "3"))
    local opcode, _, _, port, text = receive(client)
    assert.equal(OACK, opcode)
    assert.equal("tsize\0003000\0blksize\0002000\0timeout\0003\0", text:sub(3))
    ack(client, port, 0)
    assert.equal(noise(3000):sub(1, 2000), select(3, receive(client)))
    ack(client, port, 1)
    assert.equal(noise(3000):sub(2001), select(3, receive(client)))
    ack(client, port, 2)
    server:wait_for('read "file": complete')
    for _, size in ipairs { "7", "65465", "x", "-1", "0x10", "1e2", " 9", "9.0" } do -- none of these can be agreed on
      local other <close> = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 10 })
      other:send_to(request(RRQ, "file", "octet", "blksize", size), "127.0.0.1", select(2, ip.toendpoint(
        server:output():match("listening on (%S+)"))))
      assert.equal(DATA, (receive(other)))
    end
  end, 20))

  it("sends a packet again that is not answered, and gives up in the end", with_loop(function()
    local root <close> = new_directory()
    write(root.path .. "/file", "short")
    local server <close>, _, client, ask = start(root, "--retries", "3")
    ask(request(RRQ, "file"))
    for _ = 1, 3 do
      local opcode, number, data = receive(client)
      assert.same({ DATA, 1, "short" }, { opcode, number, data })
    end
    server:wait_for("no answer")
    client.receive_timeout = 0.01
    assert.is_false(pcall(receive, client))
  end, 20))

  it("answers neither a request that comes again nor an old acknowledgement", with_loop(function()
    local root <close> = new_directory()
    write(root.path .. "/file", noise(1000))
    local server <close>, _, client, ask = start(root, "--timeout", "5") -- luacheck: ignore server
    for _ = 1, 3 do ask(request(RRQ, "file")) end
    local _, number, _, port = receive(client)
    assert.equal(1, number)
    ack(client, port, 0)
    ack(client, port, 1)
    local opcode, second = receive(client)
    assert.same({ DATA, 2 }, { opcode, second })
    ack(client, port, 1)
    client.receive_timeout = 0.05
    assert.is_false(pcall(receive, client))
    ack(client, port, 2)
    server:wait_for('read "file": complete')
    assert.equal(1, select(2, server:output():gsub("complete", "")))
  end, 20))

  it("acknowledges the last block again where that was lost, and then has the whole file", with_loop(function()
    local root <close> = new_directory()
    local server <close>, _, client, ask = start(root, "--write")
    ask(request(WRQ, "new"))
    local _, number, _, port = receive(client)
    assert.equal(0, number)
    local function send(block, data) send_block(client, port, block, data) end
    send(1, noise(512))
    assert.equal(1, select(2, receive(client)))
    send(1, noise(512))
    assert.equal(1, select(2, receive(client)))
    send(2, "end")
    assert.equal(2, select(2, receive(client)))
    send(2, "end")
    assert.equal(2, select(2, receive(client)))
    server:wait_for('write "new": complete')
    assert.equal(noise(512) .. "end", pages.read(root.path .. "/new"))
  end, 20))

  it("leaves nothing of a file that does not come to its end", with_loop(function()
    local root <close> = new_directory()
    local server <close>, _, client, ask = start(root, "--write")
    ask(request(WRQ, "new"))
    local _, _, _, port = receive(client)
    send_block(client, port, 1, noise(512))
    receive(client)
    client:send_to(string.pack(">I2 I2 z", ERROR, 0, "no\27more"), "127.0.0.1", port)
    server:wait_for("the client gave up: no%?more")
    for name in lfs.dir(root.path) do assert.is_truthy(name:find("^%.+$"), name) end
  end, 20))

  it("serves the next request of a client at once, from the same port", with_loop(function()
    local root <close> = new_directory()
    -- the later --timeout counts: to wait until the stay is over would take longer than this client's patience
    local server <close>, port, client, ask = start(root, "--overwrite", "--timeout", "30")
    for i = 1, 3 do
      ask(request(WRQ, "new"))
      local _, number, _, from = receive(client)
      assert.equal(0, number)
      ask(request(WRQ, "new")) -- again, as if the answer had been lost: begins nothing
      local content = "content " .. i
      send_block(client, from, 1, content)
      local opcode, acknowledged = receive(client)
      assert.same({ ACK, 1 }, { opcode, acknowledged })
    end
    ask(request(RRQ, "new"))
    local opcode, _, data, from = receive(client)
    assert.same({ DATA, "content 3" }, { opcode, data })
    assert.are_not.equal(port, from)
    ack(client, from, 1)
    server:wait_for('read "new": complete')
    assert.equal(3, select(2, server:output():gsub('write "new": complete', "")))
  end, 20))

  it("replaces no file of a client that was faster", with_loop(function()
    local root <close> = new_directory()
    local server <close>, port, first, ask = start(root, "--write")
    local second <close> = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 10 })
    ask(request(WRQ, "new"))
    local _, _, _, first_port = receive(first)
    second:send_to(request(WRQ, "new"), "127.0.0.1", port)
    local _, _, _, second_port = receive(second)
    send_block(first, first_port, 1, "first")
    assert.equal(1, select(2, receive(first)))
    send_block(second, second_port, 1, "second")
    assert_error(6, second)
    server:wait_for("refused: the file exists")
    assert.equal("first", pages.read(root.path .. "/new"))
  end, 20))

  it("refuses a block that is longer than agreed, which would be cut", with_loop(function()
    local root <close> = new_directory()
    local server <close>, _, client, ask = start(root, "--write")
    ask(request(WRQ, "new"))
    local _, _, _, port = receive(client)
    send_block(client, port, 1, noise(513))
    assert_error(4, client)
    server:wait_for("refused: a block is too long")
    for name in lfs.dir(root.path) do assert.is_truthy(name:find("^%.+$"), name) end
  end, 20))

  it("writes no line of its log as a client wants it", with_loop(function()
    local root <close> = new_directory()
    local server <close>, _, client, ask = start(root)
    ask(request(RRQ, 'a"\n127.0.0.1:1 read "b": complete\27[2J\155\\'))
    assert_error(2, client)
    ask(request(RRQ, "a", "mode\n127.0.0.1:1 read\27[2J"))
    assert_error(4, client)
    server:wait_for("refused: mode")
    local _, lines = server:output():gsub("\n", "")
    assert.equal(3, lines) -- with that of its start
    assert.is_nil(server:output():find("[^ -~\n]"))
    assert.is_truthy(server:output():find([["a\"\x0A127.0.0.1:1 read \"b\": complete\x1B[2J\x9B\\": failed]], 1, true))
  end, 20))

  it("refuses what it must, with the code of RFC 1350", with_loop(function()
    local root <close> = new_directory()
    write(root.path .. "/file", "x")
    local server <close>, port, client, ask = start(root) -- luacheck: ignore server
    for _, case in ipairs {
      { 1, RRQ, "none" }, { 2, RRQ, "../secret" }, { 2, RRQ, "a/../../b" }, { 2, RRQ, "" }, { 2, RRQ, "." },
      { 2, RRQ, "a\\b" }, { 2, WRQ, "new" }, { 4, RRQ, "file", "mail" },
    } do
      ask(request(case[2], case[3], case[4]))
      assert_error(case[1], client)
    end
    for _, nonsense in ipairs { "", "x", "\0\1", "\0\1file\0", "\0\1file\0octet", "\0\3\0\1", "\0\9a\0b\0" } do
      ask(nonsense)
    end
    client.receive_timeout = 0.05
    assert.is_false(pcall(receive, client))
    local second <close>, writable = start(root, "--write") -- luacheck: ignore second
    client.receive_timeout = 10
    client:send_to(request(WRQ, "file"), "127.0.0.1", writable)
    assert_error(6, client)
    assert.equal("x", pages.read(root.path .. "/file"))
    assert.is_true(port ~= writable)
  end, 20))
end)
