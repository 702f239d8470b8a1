-- What holds when a close, a cancel, a deadline or an interruption meets an arriving datagram: nothing is lost, nothing
-- is delivered twice, and every call ends exactly once. The rounds are random, from fixed seeds.
local ip = require "ip"
local support = require "spec.support"

local byte_span, fiber = ip.byte_span, ip.fiber
local with_loop = support.with_loop

-- A generator of our own (Park and Miller), so that the rounds are the same on every run and machine.
local function generator(seed)
  return function(low, high)
    seed = seed * 48271 % 0x7fffffff
    return low + seed % (high - low + 1)
  end
end

local methods = { "receive", "receive_from", "receive_string" }

-- Receives one numbered datagram with one of the methods; gives its number, or nil and the error.
local function receive_number(sock, method)
  if method == "receive_string" then
    local ok, text = pcall(sock.receive_string, sock)
    if ok then return tonumber(text) end
    return nil, text
  end
  local buf = byte_span.new(16)
  local ok, n = pcall(sock[method], sock, buf)
  if ok then return tonumber(buf:sub(1, n)) end
  return nil, n
end

-- Two sockets, and a book of what was sent and what came.
local function new_book(random)
  local book = { sent = 0, seen = {}, count = 0, random = random }
  book.sock, book.port = support.bound()
  book.client = support.bound()

  function book.send()
    book.sent = book.sent + 1
    assert(book.client:try_send_to(("%d"):format(book.sent), "127.0.0.1", book.port))
  end

  function book.note(number)
    assert.is_nil(book.seen[number], "delivered twice: " .. tostring(number))
    book.seen[number] = true
    book.count = book.count + 1
  end

  -- What no call has returned is still in the socket.
  function book.drain()
    local buf = byte_span.new(16)
    while true do
      local n = book.sock:try_receive(buf)
      if n == nil then return end
      book.note(tonumber(buf:sub(1, n)))
    end
  end

  function book.assert_complete()
    assert.equal(book.sent, book.count)
  end

  function book.method()
    return methods[random(1, #methods)]
  end

  return book
end

local function turns(count)
  for _ = 1, count do fiber.yield() end
end

-- Passes some time without giving way.
local function work(seconds)
  local start = fiber.now()
  while fiber.now() - start < seconds do math.abs(0) end
end

-- One receiver, up to two datagrams, and something that ends the wait, in random order and at random distances.
local function run_rounds(seed, rounds, expected, end_wait)
  local random = generator(seed)
  local book = new_book(random)
  local ended = { datagram = 0, other = 0 }
  for _ = 1, rounds do
    local early = random(0, 5) == 0
    if early then book.send() end
    local waiting = fiber.spawn(receive_number, book.sock, book.method())
    turns(random(0, 3))
    local before = random(0, 1)
    for _ = 1, before do book.send() end
    turns(random(0, 2))
    end_wait(book, waiting)
    turns(random(0, 1))
    if random(0, 1) == 0 then book.send() end
    turns(random(0, 2))
    local number, err = waiting:join()
    if number ~= nil then
      book.note(number)
      ended.datagram = ended.datagram + 1
    else
      if err ~= nil then assert.equal(ip.error[expected], err) end
      ended.other = ended.other + 1
    end
    book.drain()
    book.assert_complete()
  end
  assert.is_true(ended.datagram > rounds / 20, "rounds that a datagram ended: " .. ended.datagram)
  assert.is_true(ended.other > rounds / 20, "rounds that " .. expected .. " ended: " .. ended.other)
  book.client:close()
  book.sock:close()
end

describe("nothing is lost and nothing delivered twice when an arriving datagram meets", function()
  for seed = 1, 3 do
    it("cancel, seed " .. seed, with_loop(function()
      run_rounds(seed, 1000, "ECANCELED", function(book, waiting)
        if book.random(0, 3) == 0 and waiting.status == "waiting" then turns(1) end
        book.sock:cancel()
        -- a receive that had not begun when it was cancelled waits for a datagram
        if waiting.status == "ready" then book.send() end
      end)
    end, 60))

    it("an interruption, seed " .. seed, with_loop(function()
      run_rounds(seed * 7, 1000, "INTERRUPTED", function(_, waiting)
        waiting:interrupt()
      end)
    end, 60))

    it("the end of its time, seed " .. seed, with_loop(function()
      local random = generator(seed * 11)
      local late = 0
      local book
      run_rounds(seed * 13, 150, "ETIMEDOUT", function(this, waiting)
        book = this
        book.sock.receive_timeout = 0.001
        if random(0, 1) == 0 then work(random(5, 15) / 10000) end
        if random(0, 1) == 0 then book.send() end
        if random(0, 1) == 0 then turns(1) end
        if waiting.status == "waiting" then late = late + 1 end
        -- one that began before the first timeout was set waits for a datagram
        if book.sent == 0 then book.send() end
      end)
      assert.is_true(late > 0)
    end, 60))

    it("the end of a with_timeout, seed " .. seed, with_loop(function()
      local random = generator(seed * 17)
      local book = new_book(random)
      local ended = { datagram = 0, deadline = 0 }
      for _ = 1, 150 do
        local waiting = fiber.spawn(function()
          local seconds = random(1, 2) / 1000
          local ok, number, err = pcall(fiber.with_timeout, seconds, receive_number, book.sock, book.method())
          if ok and number ~= nil then return number end
          assert.equal(ip.error.ETIMEDOUT, ok and err or number)
        end)
        turns(random(0, 2))
        work(random(0, 25) / 10000)
        book.send()
        local number = waiting:join()
        local outcome = number ~= nil and "datagram" or "deadline"
        ended[outcome] = ended[outcome] + 1
        if number ~= nil then book.note(number) end
        book.drain()
        book.assert_complete()
      end
      assert.is_true(ended.datagram > 0)
    end, 60))

    it("coroutine.close, seed " .. seed, with_loop(function()
      local random = generator(seed * 19)
      local book = new_book(random)
      for _ = 1, 1000 do
        local number
        local waiting = coroutine.create(function() number = receive_number(book.sock, book.method()) end)
        if random(0, 3) == 0 then book.send() end
        coroutine.resume(waiting)
        turns(random(0, 1))
        for _ = 1, random(0, 2) do book.send() end
        turns(random(0, 1))
        if coroutine.status(waiting) == "suspended" then coroutine.close(waiting) end
        turns(random(0, 2))
        if number ~= nil then book.note(number) end
        book.drain()
        book.assert_complete()
      end
    end, 60))

    it("someone else's resume, seed " .. seed, with_loop(function()
      local random = generator(seed * 23)
      local book = new_book(random)
      for _ = 1, 1000 do
        local number, err
        local waiting = coroutine.create(function() number, err = receive_number(book.sock, book.method()) end)
        coroutine.resume(waiting)
        turns(random(0, 1))
        for _ = 1, random(0, 2) do book.send() end
        turns(random(0, 1))
        if coroutine.status(waiting) == "suspended" then
          coroutine.resume(waiting, 5, "wrong", book.sock)
          assert.equal("dead", coroutine.status(waiting))
          assert.is_truthy(tostring(err):find("resumed while waiting in receive", 1, true))
          assert.is_nil(number)
        else
          book.note(number)
        end
        book.drain()
        book.assert_complete()
      end
    end, 60))
  end
end)

describe("nothing is delivered twice and every call ends when an arriving datagram meets", function()
  for seed = 1, 3 do
    it("close, seed " .. seed, with_loop(function()
      local random = generator(seed * 29)
      local book = new_book(random)
      local closed = 0
      for _ = 1, 1000 do
        local waiting = {}
        for i = 1, random(1, 3) do waiting[i] = fiber.spawn(receive_number, book.sock, book.method()) end
        turns(random(0, 2))
        for _ = 1, random(0, 3) do book.send() end
        turns(random(0, 1))
        book.sock:close()
        if random(0, 1) == 0 then turns(1) end
        for _, each in ipairs(waiting) do
          local number, err = each:join()
          if number ~= nil then
            book.note(number)
          else
            closed = closed + 1
            assert.is_true(err == ip.error.ECANCELED or err == ip.error.EBADF, tostring(err))
          end
        end
        book.sock:bind("127.0.0.1", book.port)
        assert.is_nil((book.sock:try_receive(byte_span.new(16))))
      end
      assert.is_true(book.count <= book.sent)
      assert.is_true(book.count > 100, "delivered: " .. book.count)
      assert.is_true(closed > 100, "ended by close: " .. closed)
    end, 60))
  end
end)

describe("with many fibers waiting on one socket", function()
  for seed = 1, 3 do
    it("each datagram reaches one of those who did not give up, seed " .. seed, with_loop(function()
      local random = generator(seed * 31)
      local book = new_book(random)
      local alive, ended = {}, 0

      local function spawn()
        local self
        self = fiber.spawn(function()
          local number, err = receive_number(book.sock, book.method())
          alive[self], ended = nil, ended + 1
          if number ~= nil then
            book.note(number)
          else
            assert.is_true(err == ip.error.INTERRUPTED or err == ip.error.ECANCELED, tostring(err))
          end
        end)
        alive[self] = true
        return self
      end

      local started, list = 0, {}
      for _ = 1, 4000 do
        local what = random(1, 12)
        if what <= 4 then
          started = started + 1
          list[#list + 1] = spawn()
        elseif what <= 8 then
          book.send()
          if book.sent - book.count > 50 then book.drain() end
        elseif what <= 10 and #list > 0 then
          local waiting = table.remove(list, random(1, #list))
          if alive[waiting] then waiting:interrupt() end
        elseif what == 11 then
          turns(1)
        elseif random(1, 5) == 1 then
          book.sock:cancel()
        end
      end
      turns(2)
      book.sock:cancel()
      turns(2)
      book.drain()
      assert.equal(started, ended)
      assert.is_nil(next(alive))
      book.assert_complete()
    end, 60))
  end

  it("they get the datagrams in the order in which they came, whoever gives up in between", with_loop(function()
    local random = generator(37)
    local book = new_book(random)
    for _ = 1, 200 do
      local served, waiting = {}, {}
      for i = 1, 5 do
        waiting[i] = fiber.spawn(function()
          local number = receive_number(book.sock, "receive_string")
          if number ~= nil then served[#served + 1] = { i, number } end
        end)
      end
      turns(1)
      local quitter = random(1, 5)
      if random(0, 1) == 0 then
        waiting[quitter]:interrupt()
        for _ = 1, 4 do book.send() end
      else
        for _ = 1, 4 do book.send() end
        waiting[quitter]:interrupt()
      end
      for _, each in ipairs(waiting) do each:join() end
      assert.equal(4, #served)
      for k = 2, 4 do
        assert.is_true(served[k - 1][1] < served[k][1])
        assert.equal(served[k - 1][2] + 1, served[k][2])
      end
    end
  end, 60))
end)

describe("when the first of two waiters gives up in the turn in which the datagram comes", function()
  local function waiters()
    local sock, port = support.bound()
    local client = ip.udp.connect("127.0.0.1", port)
    return sock, client
  end

  local function wait_for(sock)
    local waiting = fiber.spawn(pcall, sock.receive_string, sock)
    support.wait_until(function() return waiting.status == "waiting" end)
    return waiting
  end

  for _, order in ipairs { "before", "after" } do
    it("the second gets the datagram, which came " .. order .. " the interruption", with_loop(function()
      local sock, client = waiters()
      local first, second = wait_for(sock), wait_for(sock)
      if order == "before" then client:send("for the second") end
      first:interrupt()
      if order == "after" then client:send("for the second") end
      local _, text = second:join()
      assert.equal("for the second", text)
      local _, err = first:join()
      assert.equal(ip.error.INTERRUPTED, err)
    end))

    it("the second gets the datagram, which came " .. order .. " the end of the coroutine", with_loop(function()
      local sock, client = waiters()
      local first = coroutine.create(function() sock:receive_string() end)
      coroutine.resume(first)
      local second = wait_for(sock)
      if order == "before" then client:send("for the second") end
      coroutine.close(first)
      if order == "after" then client:send("for the second") end
      local _, text = second:join()
      assert.equal("for the second", text)
    end))
  end

  it("the second gets the datagram though the first one's time is over", with_loop(function()
    local sock, client = waiters()
    sock.receive_timeout = 0.005
    local first = wait_for(sock)
    sock.receive_timeout = nil
    local second = wait_for(sock)
    work(0.01)
    first:interrupt()
    client:send("for the second")
    local _, text = second:join()
    assert.equal("for the second", text)
    first:join()
  end))

  it("one whose time is over does not overtake the one before it", with_loop(function()
    local sock, client = waiters()
    local first = wait_for(sock)
    sock.receive_timeout = 0.001
    local second = wait_for(sock)
    client:send("for the first")
    work(0.005)
    local _, text = first:join()
    assert.equal("for the first", text)
    local _, err = second:join()
    assert.equal(ip.error.ETIMEDOUT, err)
  end))

  it("of two whose time is over the first gets what came in time", with_loop(function()
    local sock, client = waiters()
    sock.receive_timeout = 0.001
    local function receive() return pcall(sock.receive_string, sock) end
    local first, second, busy = fiber.spawn(receive), fiber.spawn(receive), fiber.spawn(work, 0.005)
    client:send("for the first")
    busy:join()
    local _, text = first:join()
    assert.equal("for the first", text)
    local _, err = second:join()
    assert.equal(ip.error.ETIMEDOUT, err)
    assert.is_nil((sock:try_receive(byte_span.new(1))))
  end))

  it("what was sent before both were cancelled stays in the socket", with_loop(function()
    local sock, client = waiters()
    local first, second = wait_for(sock), wait_for(sock)
    client:send("stays")
    sock:cancel()
    local _, first_error = first:join()
    local _, second_error = second:join()
    assert.equal(ip.error.ECANCELED, first_error)
    assert.equal(ip.error.ECANCELED, second_error)
    assert.equal("stays", (sock:receive_string()))
  end))
end)

describe("a fiber that a datagram woke", function()
  it("may close the socket; the others that waited get ECANCELED", with_loop(function()
    for _ = 1, 50 do
      local sock, port = support.bound()
      local client <close> = ip.udp.connect("127.0.0.1", port)
      local errors = {}
      local first = fiber.spawn(function()
        local text = sock:receive_string()
        sock:close()
        return text
      end)
      local others = {}
      for i = 1, 3 do
        others[i] = fiber.spawn(function() errors[i] = support.error_of(sock.receive_string, sock) end)
      end
      turns(1)
      for i = 1, 4 do client:send(("%d"):format(i)) end
      assert.equal("1", (first:join()))
      for i = 1, 3 do
        others[i]:join()
        assert.equal(ip.error.ECANCELED, errors[i])
      end
    end
  end))

  it("may close the socket and open it again with the same descriptor", with_loop(function()
    local sock, port = support.bound()
    local client <close> = ip.udp.connect("127.0.0.1", port)
    local first = fiber.spawn(function()
      sock:receive_string()
      sock:close()
      sock:bind("127.0.0.1", port)
      return (sock:receive_string())
    end)
    local other = fiber.spawn(pcall, sock.receive_string, sock)
    turns(1)
    client:send("old")
    local _, err = other:join()
    assert.equal(ip.error.ECANCELED, err)
    client:send("new")
    assert.equal("new", (first:join()))
  end))

  it("may drop the last reference to the socket", with_loop(function()
    local client <close> = support.bound()
    for _ = 1, 20 do
      local port
      local woken = fiber.spawn(function()
        local sock
        sock, port = support.bound()
        sock:receive_string()
        sock = nil -- luacheck: ignore
        collectgarbage()
        collectgarbage()
        return "alive"
      end)
      turns(1)
      client:send_to("x", "127.0.0.1", port)
      assert.equal("alive", (woken:join()))
    end
  end))

  it("may cancel the socket; those behind it get ECANCELED, and the datagrams stay", with_loop(function()
    local sock, port = support.bound()
    local client <close> = ip.udp.connect("127.0.0.1", port)
    local first = fiber.spawn(function()
      local text = sock:receive_string()
      sock:cancel()
      return text
    end)
    local second = fiber.spawn(pcall, sock.receive_string, sock)
    turns(1)
    client:send("one")
    client:send("two")
    assert.equal("one", (first:join()))
    local _, err = second:join()
    assert.equal(ip.error.ECANCELED, err)
    assert.equal("two", (sock:receive_string()))
  end))

  it("may interrupt the one behind it", with_loop(function()
    local sock, port = support.bound()
    local client <close> = ip.udp.connect("127.0.0.1", port)
    local second
    local first = fiber.spawn(function()
      local text = sock:receive_string()
      second:interrupt()
      return text
    end)
    second = fiber.spawn(pcall, sock.receive_string, sock)
    turns(1)
    client:send("one")
    client:send("two")
    assert.equal("one", (first:join()))
    local _, err = second:join()
    assert.equal(ip.error.INTERRUPTED, err)
    assert.equal("two", (sock:receive_string()))
  end))

  it("may raise; the one behind it still gets its datagram", with_loop(function()
    local sock, port = support.bound()
    local client <close> = ip.udp.connect("127.0.0.1", port)
    local first = fiber.spawn(function()
      sock:receive_string()
      error("out of here")
    end)
    local second = fiber.spawn(pcall, sock.receive_string, sock)
    local joiner = fiber.spawn(pcall, first.join, first)
    turns(2)
    client:send("one")
    client:send("two")
    local _, text = second:join()
    assert.equal("two", text)
    assert.is_false((joiner:join()))
  end))

  it("may shut the receiving side; those behind it get ESHUTDOWN", with_loop(function()
    local sock, peer = support.pair()
    local first = fiber.spawn(function()
      local text = sock:receive_string()
      sock:shutdown("receive")
      return text
    end)
    local second = fiber.spawn(pcall, sock.receive_string, sock)
    turns(1)
    peer:send("one")
    peer:send("two")
    assert.equal("one", (first:join()))
    local _, err = second:join()
    assert.equal(ip.error.ESHUTDOWN, err)
  end))
end)

describe("many sockets at once", function()
  for seed = 1, 2 do
    it("lose nothing and leave nothing, seed " .. seed, with_loop(function()
      local random = generator(seed * 41)
      local server, port = support.bound()
      local count, per_client = 20, 30
      local replies = 0
      local echo = fiber.spawn(function()
        local buf = byte_span.new(32)
        while true do
          local n, address, from = server:receive_from(buf)
          server:send_to(buf:slice(1, n), address, from)
        end
      end)
      local clients = {}
      for i = 1, count do
        clients[i] = fiber.spawn(function()
          local sock <close> = ip.udp.connect("127.0.0.1", port)
          for k = 1, per_client do
            local text = i .. ":" .. k
            if random(0, 4) == 0 then
              sock.receive_timeout = 0
              assert.equal(ip.error.ETIMEDOUT, support.error_of(sock.receive_string, sock))
              sock.receive_timeout = nil
            end
            sock:send(text)
            if random(0, 2) == 0 then fiber.yield() end
            assert.equal(text, (sock:receive_string()))
            replies = replies + 1
          end
        end)
      end
      for _, client in ipairs(clients) do client:join() end
      assert.equal(count * per_client, replies)
      echo:interrupt()
      echo:join()
      server:close()
    end, 60))
  end
end)
