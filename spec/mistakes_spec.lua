-- What the library says to mistakes: every public call with wrong types, ranges and order, with a dot for a colon, on
-- sockets that are not open, with the other family, and wrong options, properties and names. The texts are in
-- spec/expected/mistakes.txt, so that a change of any of them is read before it lands:
-- `lua5.4 spec/support/write_mistakes.lua` writes the file anew.
local ip = require "ip"
local core = require "ip.core"
local assertions = require "spec.support.assertions"
local mistakes = require "spec.support.mistakes"
local platform = require "spec.support.platform"
local support = require "spec.support"

local fiber = ip.fiber
local assert_message = assertions.assert_message

local function lines_of(text)
  local lines = {}
  for line in text:gmatch("[^\n]*") do lines[#lines + 1] = line end
  return lines
end

local it_linux = platform.is_linux and it or pending

describe("a mistake", function()
  it_linux("is answered with what was wrong, the value and the remedy, as the file of texts says", support.with_loop(
    function()
      local file <close> = assert(io.open("spec/expected/mistakes.txt"))
      local expected, got = lines_of(file:read("a")), lines_of(mistakes.text())
      for i, line in ipairs(expected) do
        assert.equal(line, got[i], "line " .. i .. " of spec/expected/mistakes.txt, after " .. (expected[i - 1] or ""))
      end
      assert.equal(#expected, #got)
    end, 60))

  it("that calls any method on something else is answered with the method's name, also without a colon",
    support.with_loop(function()
      local sock <close> = ip.udp.bind("127.0.0.1", 0)
      local listener <close> = ip.udp.listen("127.0.0.1", 0)
      local peer <close> = ip.udp.connect("127.0.0.1", listener.local_port)
      peer:send("x")
      local objects = {
        sock, listener, listener:accept(), ip.udp.batch.new(1), ip.byte_span.new(1), ip.address.new(), fiber.current(),
        fiber.queue(), fiber.condition(), fiber.semaphore(1), fiber.group(), ip.error.EAGAIN,
        ip.udp.bind("127.0.0.1", 0):release(),
      }
      for i, object in ipairs(objects) do
        local class = getmetatable(object)
        for name in pairs(core.class_members(class)) do
          local readable, method = pcall(function() return object[name] end)
          if readable and type(method) == "function" then
            local start = ("calling '%s' on bad self (%s expected, got "):format(name, class)
            assert_message(start .. "no value)", method)
            for _, other in ipairs { true, 1, "x", {}, print, io.stdout, objects[i % #objects + 1] } do
              assert_message(start, method, other, 1, 2, 3)
            end
          end
        end
      end
    end))
end)
