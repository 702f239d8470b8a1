-- What the command lines of the examples promise: --help, and refusals.
local support = require "spec.support"
local examples = require "spec.support.examples"
local process = require "spec.support.process"
local programs = require "spec.support.resolver_programs"

local with_loop, assert_refused = support.with_loop, examples.assert_refused

describe("the examples' command lines", function()
  after_each(process.stop_all)

  local no_operands = { echo_server = true, echo_client = true, dns_server = true }

  for _, name in ipairs { "echo_server", "echo_client", "dns_server", "dns_lookup" } do
    local function is_refused(...)
      assert_refused(name, ...)
    end

    it(name .. " has --help", with_loop(function()
      examples.assert_help(name, "%-%-port PORT.*")
    end))

    it(name .. " refuses wrong arguments", with_loop(function()
      is_refused("unknown option %-%-nonsense", "--nonsense")
      is_refused("unknown option %-x", "-x")
      is_refused("%-%-port needs a value", "--port")
      is_refused("%-%-port 70000: .*65535", "--port", "70000")
      is_refused("%-%-port 12x: .*whole number", "--port=12x")
      if no_operands[name] then is_refused("unexpected argument more", "more") end
    end))
  end

  it("refuse addresses, counts and times that are none", with_loop(function()
    local function is_refused(...)
      local _, errors, code = examples.run(...)
      assert.equal(2, code)
      assert.matches("usage:", errors)
    end
    is_refused("echo_server", "--address", "localhost")
    is_refused("echo_client", "--address", "1.2.3")
    is_refused("echo_client", "--count", "0")
    is_refused("echo_client", "--size", "15")
    is_refused("echo_client", "--timeout", "0")
    is_refused("echo_client", "--interval", "-1")
    is_refused("echo_client", "--in-flight", "0")
    is_refused("echo_client", "--quiet=yes")
    is_refused("dns_lookup")
    is_refused("dns_lookup", "--server", "localhost", "www.example.test")
    is_refused("dns_lookup", "--type", "A,MX", "www.example.test")
    is_refused("dns_lookup", "--tries", "0", "www.example.test")
    is_refused("dns_lookup", "a..b")
    is_refused("dns_lookup", ("x"):rep(64))
    is_refused("dns_lookup", ("abcdefg."):rep(32))
  end))

  it("refuse files that are none, and say why", with_loop(function()
    assert_refused("dns_server", "%-%-zone /none/zone: No such file or directory\n", "--zone", "/none/zone")
    assert_refused("dns_server", "%-%-zone %.: Is a directory\n", "--zone", ".")
    assert_refused("dns_server", "%-%-zone : No such file or directory\n", "--zone", "")
    assert_refused("tftp_server", "%-%-root README%.md: Not a directory\n", "--root", "README.md")
  end))
end)

describe("the ends of the examples", function()
  after_each(process.stop_all)

  local servers = {
    bandwidth = { "--port", "0" },
    dns_server = { "--port", "0" },
    echo_server = { "--port", "0" },
    sntp_server = { "--port", "0" },
    tftp_server = { "--port", "0" },
    udp_relay = { "--to", "127.0.0.1", "--to-port", "9", "--port", "0" },
  }

  for name, arguments in pairs(servers) do
    it("say nothing when Ctrl-C ends the server " .. name, with_loop(function()
      local server <close> = process.start(examples.words(name, table.unpack(arguments)))
      server:wait_for("listening on")
      local errors = server:errors() -- where the system has no v6
      server:signal("INT")
      assert.equal(130, server:wait())
      assert.equal(errors, server:errors())
    end))
  end

  local clients = {
    bandwidth = { "--to", "127.0.0.1", "--seconds", "60" },
    dns_lookup = { "--timeout", "60", "www.example.test" },
    echo_client = { "--timeout", "60" },
    path_mtu = { "--timeout", "60", "127.0.0.1" },
    traceroute = { "--timeout", "60", "127.0.0.1" },
  }

  for name, arguments in pairs(clients) do
    it("say nothing when Ctrl-C ends the client " .. name, with_loop(function()
      local sock <close>, port = support.bound()
      local client <close> = process.start(examples.words(name, "--port", port, table.unpack(arguments)))
      sock:receive_string()
      client:signal("INT")
      assert.equal(130, client:wait())
      assert.equal("", client:errors())
    end))
  end

  for name, arguments in pairs {
    path_mtu = '"slow.test"',
    traceroute = '"slow.test"',
    udp_relay = '"--to", "slow.test", "--to-port", "9"',
    bandwidth = '"--to", "slow.test"',
  } do
    programs.it_network("say nothing when Ctrl-C ends the look-up of " .. name, programs.prints("130\t\t\n",
      programs.SILENT .. ([[
local examples = require "spec.support.examples"
local process = require "spec.support.process"
local example <close> = process.start(examples.words("%s", %s))
wait_until_asked()
example:signal("INT")
print(example:wait(), example:output(), example:errors())
]]):format(name, arguments)))
  end

  it("tell what the system says, without a traceback", with_loop(function()
    for _, words in ipairs { { "echo_client", "--address", "255.255.255.255" }, { "path_mtu", "255.255.255.255" } } do
      local _, errors, code = examples.run(table.unpack(words))
      assert.equal(1, code)
      assert.matches("^" .. words[1] .. "%.lua: [^\n]*connect 255%.255%.255%.255:%d+: [^\n]*EACCES[^\n]*\n$", errors)
    end
  end))

  it("tell where a mistake in a program is", with_loop(function()
    local program = 'package.path = "examples/?.lua;" .. package.path '
      .. 'require("command_line").run(function() error("a mistake") end)'
    local path = support.write_file(program)
    local _, errors, code = process.run(process.lua(path))
    os.remove(path)
    assert.equal(1, code)
    assert.matches(": [^\n]*:1: a mistake\nstack traceback:\n", errors)
  end))

  it("say nothing when nobody reads their output", with_loop(function()
    local sock <close>, port = support.bound()
    for _, words in ipairs { { "echo_server", "--help" }, { "echo_client", "--port", port, "--count", "1", "--quiet" },
      { "dns_lookup", "--port", port, "--tries", "1", "--timeout", "0.01", "a.test" } } do
      local command = { "sh", "-c", '"$@" | true', "sh" }
      for _, word in ipairs(examples.words(table.unpack(words))) do command[#command + 1] = word end
      local _, errors = process.run(command)
      assert.equal("", errors)
    end
    assert.is_true(sock.is_open)
  end))
end)
