-- That the network cannot end serve: the first program of README.md goes on answering after everything that a network,
-- a firewall and a forger of packets can do to it. Each attack runs in a network namespace of its own. Linux, as root.
local hosts = require "spec.support.hosts"
local namespace = require "spec.support.namespace"
local netns = require "spec.support.netns"
local pages = require "spec.support.pages"
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"

local on_main = support.on_main

-- The first program of the page, as it stands there: its port is free in a new namespace.
local function first_program()
  local first
  pages.scan("README.md", nil, function(language, _, source)
    if language == "lua" and first == nil then first = source end
  end)
  return first
end

-- The same with a function that writes what it hears: name, transient, port.
local REPORTING = [[
  local ip = require "ip"
  ip.udp.bind("127.0.0.1", 9008):serve(function(data) return data end, { on_error = function(err, _, port)
    io.stdout:write(err.name, " ", tostring(err.transient), " ", tostring(port), "\n")
    io.stdout:flush()
  end })
]]

-- What an attacker uses, in the namespace of the server: `both` attacks both servers.
local ATTACKER = [[
  local ip = require "ip"
  local fiber = ip.fiber
  local client = ip.udp.bind("127.0.0.1", 0)
  local function answers(port)
    client.receive_timeout = 0.05
    for i = 1, 400 do
      client:send_to("question " .. i, "127.0.0.1", port)
      local ok, text = pcall(client.receive_string, client)
      if ok and text == "question " .. i then return true end
    end
    return false
  end
  local function shell(command) assert(os.execute("env LD_PRELOAD= " .. command), command) end
  local function forge(...) shell(raw_sender .. " " .. table.concat({ ... }, " ")) end
  local PORTS = { 9007, 9008 }
  for _, port in ipairs(PORTS) do assert(answers(port), "it does not begin to answer") end
]]

local RAW_SENDER = ("local raw_sender = %q\n"):format(hosts.path("raw_sender") or "")
local CHECK = "\nfor _, port in ipairs(PORTS) do assert(answers(port), 'it does not answer') end"

local function start(network, program)
  local path = support.write_file(program)
  local running = process.start { "sh", "-c", "exec " .. network:program('"$@"'), "sh", support.interpreter, path }
  return running, path
end

-- Runs the attack, source text that uses `port`, on both servers; returns what the reporting one has heard.
local function attack(source)
  local network <close> = assert(netns.new())
  local server, path = start(network, first_program())
  local reporting, reporting_path = start(network, REPORTING)
  local output, code = namespace.run_program(network, RAW_SENDER .. ATTACKER .. source .. CHECK)
  os.remove(path)
  os.remove(reporting_path)
  assert.equal(0, code, output .. server:errors() .. reporting:errors())
  assert.is_true(server:is_running(), server:errors())
  assert.equal("", server:errors())
  local heard = reporting:output()
  server:stop()
  reporting:stop()
  return heard
end

local permitted = platform.is_linux and netns.is_permitted()
local it_permitted = platform.it_where(permitted, "network namespaces")
local it_forged = platform.it_where(permitted and hosts.path("raw_sender"), "network namespaces and raw sockets")
local it_firewalled = platform.it_where(permitted and process.exists("nft"), "network namespaces and nft")

describe("a server by serve", function()
  after_each(process.stop_all)

  it_forged("answers after a datagram from port 0", on_main(function()
    local heard = attack [[
      for _, port in ipairs(PORTS) do
        for _ = 1, 3 do forge("udp", "127.0.0.1", 0, "127.0.0.1", port, "x") end
      end
    ]]
    assert.equal(("EINVAL true 0\n"):rep(3), heard)
  end, 60))

  it_forged("answers after datagrams from senders that no route leads to", on_main(function()
    local heard = attack [[
      shell "ip route add unreachable 198.51.100.1"
      shell "ip route add prohibit 198.51.100.2"
      shell "ip route add blackhole 198.51.100.3"
      for _, port in ipairs(PORTS) do
        for _, source in ipairs { "203.0.113.1", "198.51.100.1", "198.51.100.2", "198.51.100.3", "255.255.255.255" } do
          forge("udp", source, 7, "127.0.0.1", port, "x")
        end
      end
    ]]
    local names = {}
    for name, port in heard:gmatch("(%u+) %a+ (%d+)\n") do
      assert.equal("7", port)
      names[#names + 1] = name
    end
    assert.same({ "ENETUNREACH", "EHOSTUNREACH", "EACCES", "EINVAL", "EACCES" }, names)
  end, 60))

  it_firewalled("answers after a firewall has refused its answers", on_main(function()
    local heard = attack [[
      shell "nft add table ip wall"
      shell "nft 'add chain ip wall out { type filter hook output priority 0; }'"
      shell "nft 'add rule ip wall out udp sport 9007-9008 drop'"
      for _, port in ipairs(PORTS) do
        for _ = 1, 3 do client:send_to("x", "127.0.0.1", port) end
      end
      client.receive_timeout = 0.05
      assert(not pcall(client.receive_string, client))
      shell "nft delete table ip wall"
    ]]
    assert.matches("^EPERM true %d+\nEPERM true %d+\nEPERM true %d+\n$", heard)
  end, 60))

  it_permitted("answers after clients that have gone, and after datagrams that are too long", on_main(function()
    local heard = attack [[
      for _, port in ipairs(PORTS) do
        for _ = 1, 5 do
          local gone <close> = ip.udp.bind("127.0.0.1", 0)
          gone:send_to("x", "127.0.0.1", port)
        end
        for _ = 1, 3 do
          client:send_to(("x"):rep(9000), "127.0.0.1", port)
          client.receive_timeout = 5
          assert(#client:receive_string() == ip.udp.default_capacity)
        end
      end
    ]]
    assert.equal("", heard)
  end, 60))

  it_permitted("answers after a flood that no buffer holds", on_main(function()
    local heard = attack [[
      for _, port in ipairs(PORTS) do
        local flooders = {}
        for i = 1, 20 do flooders[i] = ip.udp.connect("127.0.0.1", port) end
        for _ = 1, 1000 do
          for i = 1, 20 do flooders[i]:try_send("flood") end
        end
        for i = 1, 20 do flooders[i]:close() end
      end
    ]]
    assert.equal("", heard)
  end, 60))
end)

describe("a server by serve that the network reports errors to", function()
  -- Forges every ICMP error about datagrams of the server, and checks that it answers the peer after each.
  local function survives(open)
    return on_main(function()
      local network <close> = assert(netns.new())
      local output, code = namespace.run_program(network, RAW_SENDER .. [[
        local ip = require "ip"
        local fiber = ip.fiber
        local peer = ip.udp.bind("127.0.0.1", 0)
        local heard = {}
        local function on_error(err) heard[err.name] = true end
      ]] .. open .. [[
        peer:connect("127.0.0.1", sock.local_port)
        peer.receive_timeout = 5
        local server = fiber.spawn(sock.serve, sock, function(data) return data end, { on_error = on_error })
        for kind, codes in pairs { [3] = 15, [11] = 1, [12] = 1 } do
          for code = 0, codes do
            assert(os.execute(("env LD_PRELOAD= %s icmp %d %d 127.0.0.1 %d 127.0.0.1 %d"):format(
              raw_sender, kind, code, sock.local_port, peer.local_port)))
            peer:send("x")
            assert(peer:receive_string() == "x") -- the answer is not the one that the error is about
          end
        end
        sock:close()
        assert(server:join() == "closed")
        for _, name in ipairs { "ECONNREFUSED", "ENOPROTOOPT" } do assert(heard[name], name) end
      ]])
      assert.equal(0, code, output)
    end, 60)
  end

  it_forged("answers after every ICMP error on a connected socket", survives [[
    local sock = ip.udp.connect("127.0.0.1", peer.local_port)
  ]])

  it_forged("answers after every ICMP error with receive_errors", survives [[
    local sock = ip.udp.bind("127.0.0.1", 0, { receive_errors = true })
  ]])

  it_permitted("answers again when its peer, which had gone, has come back", on_main(function()
    local network <close> = assert(netns.new())
    local output, code = namespace.run_program(network, [[
      local ip = require "ip"
      local peer = ip.udp.bind("127.0.0.1", 0)
      local port = peer.local_port
      local sock = ip.udp.connect("127.0.0.1", port)
      local names = {}
      local server = ip.fiber.spawn(sock.serve, sock, function(data) return data end, {
        on_error = function(err) names[#names + 1] = err.name end })
      ip.fiber.run(function()
        peer:send_to("x", "127.0.0.1", sock.local_port)
        peer:close() -- the answer meets a closed port
        while #names == 0 do ip.fiber.sleep(0.001) end
        peer = ip.udp.bind("127.0.0.1", port)
        peer:send_to("back", "127.0.0.1", sock.local_port)
        assert(peer:receive_string() == "back")
        sock:close()
        assert(server:join() == "closed")
      end)
      assert(table.concat(names, " ") == "ECONNREFUSED")
    ]])
    assert.equal(0, code, output)
  end, 60))
end)
