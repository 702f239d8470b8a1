-- What discovery.lua promises, on a link of its own.
local support = require "spec.support"
local examples = require "spec.support.examples"
local network = require "spec.support.namespaces"
local platform = require "spec.support.platform"
local process = require "spec.support.process"

local with_loop, run_example = support.with_loop, examples.run
local assert_help, assert_refused = examples.assert_help, examples.assert_refused

describe("discovery.lua", function()
  local is_permitted = examples.can_use_networks()
  local it_network = platform.it_where(is_permitted, "Linux and root")
  local net

  setup(function()
    if not is_permitted then return end
    net = network.new("left", "right")
    net:join("wire0", "left", { "10.82.1.1/24", "fd82:1::1/64" }, "right", { "10.82.1.2/24", "fd82:1::2/64" })
    net:agent("left") -- started here, for it stays to the end
  end)
  after_each(process.stop_all)
  teardown(function()
    if net then net:close() end
  end)

  local function start_announcing(where, name, ...)
    local announcer = process.start(examples.words_in(net, where, "discovery", "--announce", name,
      "--interface", "wire0", ...))
    announcer:wait_for("listening on")
    return announcer
  end

  -- The names that are found, and the addresses of each.
  local function find_all(...)
    local output, errors, code = examples.run_in(net, "left", "discovery", "--interface", "wire0", "--wait", "2", ...)
    assert.equal("", errors)
    local found = {}
    for name, address in output:gmatch("([^\n]+) at (%S+)\n") do
      found[name] = found[name] or {}
      table.insert(found[name], address)
    end
    for _, addresses in pairs(found) do table.sort(addresses) end
    return found, code
  end

  it("has --help and refuses wrong arguments", with_loop(function()
    assert_help("discovery")
    assert_refused("discovery", "%-%-family v5: v4 or v6", "--family", "v5")
    assert_refused("discovery", "%-%-announce a/b", "--announce", "a/b")
    assert_refused("discovery", "%-%-announce x+: ", "--announce", ("x"):rep(201))
    assert_refused("discovery", "%-%-port 0", "--port", "0")
    assert_refused("discovery", "%-%-wait 0", "--wait", "0")
    assert_refused("discovery", "unexpected argument more", "more")
  end, 20))

  it_network("says nothing when Ctrl-C ends it", with_loop(function()
    local announcer <close> = start_announcing("right", "somebody")
    announcer:signal("INT")
    assert.equal(130, announcer:wait())
    assert.equal("", announcer:errors())
  end, 30))

  it("says that there is no such interface", with_loop(function()
    local output, errors, code = run_example("discovery", "--interface", "nosuch0")
    assert.equal(1, code)
    assert.equal("", output)
    assert.matches("^discovery%.lua: no v4 on nosuch0: .*ENODEV%)\n"
      .. "discovery%.lua: no v6 on nosuch0: .*ENODEV%)\n$", errors)
  end))

  it_network("finds all who announce themselves on the other side, over v4 and v6", with_loop(function()
    local one <close> = start_announcing("right", "printer one")
    local two <close> = start_announcing("right", "printer-two", "--family", "v6")
    local found, code = find_all()
    assert.equal(0, code)
    assert.equal(2, #found["printer one"])
    assert.equal("10.82.1.2", found["printer one"][1])
    assert.matches("^fe80::", found["printer one"][2])
    assert.equal(1, #found["printer-two"])
    assert.matches("^fe80::.*%%wire0$", found["printer-two"][1])
    found = find_all("--family", "v4")
    assert.same({ ["printer one"] = { "10.82.1.2" } }, found)
    assert.equal("", one:errors() .. two:errors())
  end, 40))

  it_network("exits with 1 when nobody is there", with_loop(function()
    local found, code = find_all()
    assert.same({}, found)
    assert.equal(1, code)
  end, 20))

  it_network("answers questions and nothing else", with_loop(function()
    local announcer <close> = start_announcing("right", "printer one", "--family", "v4")
    local got = net:agent("left"):run([[
      local question = "lua-ip discovery: who is there? "
      local sock <close> = ip.udp.bind("0.0.0.0", 0, { multicast_interface = "wire0", receive_timeout = 9 })
      for _, text in ipairs { "", "nonsense", question, question .. "1234567", question .. "123456789",
        question:upper() .. "12345678", question .. "the last" } do
        sock:send_to(text, "239.255.76.85", 9009)
      end
      return next_of(sock)
    ]])
    assert.equal("lua-ip discovery: here is the lastprinter one", got)
    assert.equal("", announcer:errors())
  end, 20))
end)
