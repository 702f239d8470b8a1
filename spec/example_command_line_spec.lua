-- What the command lines of the examples promise: --help, and refusals.
local support = require "spec.support"
local examples = require "spec.support.examples"
local process = require "spec.support.process"

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
