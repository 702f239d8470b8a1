--- Assertions that many specs share.

local ip = require "ip"
local support = require "spec.support"
local assert = require "luassert"

local error_of = support.error_of

local assertions = {}

--- Fails unless `part` is in the text of `value`, a string or an error value.
function assertions.assert_contains(value, part)
  local text = tostring(value)
  assert.is_truthy(text:find(part, 1, true), ("%q does not contain %q"):format(text, part))
end

local assert_contains = assertions.assert_contains

--- Calls a method as a program writes it: the name of the method is in the messages of Lua's errors then.
function assertions.call_method(object, method, ...)
  return assert(load(("local object = ... return (object:%s(select(2, ...)))"):format(method)))(object, ...)
end

local call_method = assertions.call_method

--- Fails unless fn(...) raises the library's error `name`, in `operation` where that is given.
---@param name string such as "EINVAL"
---@param operation string?
---@return table error
function assertions.assert_raises(name, operation, fn, ...)
  local err = error_of(fn, ...)
  assert.equal(ip.error[name], err)
  if operation then assert.equal(operation, err.operation) end
  return err
end

--- Fails unless object:method(...) raises the library's error `name`, with the method as its operation.
function assertions.assert_method_raises(name, object, method, ...)
  return assertions.assert_raises(name, method, call_method, object, method, ...)
end

--- Fails unless fn(...) raises a string that contains `text`.
function assertions.assert_message(text, fn, ...)
  local message = error_of(fn, ...)
  assert.is_string(message)
  assert_contains(message, text)
  return message
end

--- Fails unless fn(...) raises Lua's "bad argument" for the argument at `position` (nil: any) with `text`
--- (nil: any) in the message, such as "to 'bind'" or what is wrong with the argument.
---@param position integer?
---@param text string?
---@return string message
function assertions.assert_bad_argument(position, text, fn, ...)
  local start = position and ("bad argument #%d to "):format(position) or "bad argument"
  local message = assertions.assert_message(start, fn, ...)
  if text then assert_contains(message, text) end
  return message
end

--- Fails unless object:method(...) raises "bad argument #<position> to '<method>'".
---@return string message
function assertions.assert_bad_method_argument(position, object, method, ...)
  local start = ("bad argument #%d to '%s'"):format(position, method)
  return assertions.assert_message(start, call_method, object, method, ...)
end

--- Fails unless a Lua program (see support.run_program) writes just that, and ends well.
function assertions.assert_prints(expected, program, arguments, before)
  local output, code = support.run_program(program, arguments, before)
  assert.equal(expected, output)
  assert.equal(0, code)
end

--- Fails unless these are the results of the try_ call `operation` that would have had to wait.
function assertions.assert_again(operation, value, err)
  assert.is_nil(value)
  assert.is_true(rawequal(ip.error.EAGAIN, err), operation .. " returned not the one shared error")
end

--- Fails unless nothing can be received. On loopback that is certain: a datagram is there when its send has
--- returned.
function assertions.assert_empty(sock)
  assertions.assert_again("try_receive", sock:try_receive(ip.byte_span.new(1)))
end

--- Runs fn() in a fiber to its end, and fails when the loop wakes up more often than `most` meanwhile (10
--- when not given: a timer of libuv may need a few). A loop that spins wakes up thousands of times. On the
--- main thread only.
---@param most integer?
function assertions.assert_sleeps(fn, most)
  local wakeups = support.wakeups(fn)
  assert.is_true(wakeups <= (most or 10), "wake-ups of the loop: " .. wakeups)
end

return assertions
