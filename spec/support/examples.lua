--- The programs in examples/, run as processes. For `after_each` or `teardown`: process.stop_all.

local ip = require "ip"
local network = require "spec.support.namespaces"
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"
local assert = require "luassert"

local examples = {}

--- The words of a command that runs an example with these arguments.
function examples.words(name, ...)
  return process.lua("examples/" .. name .. ".lua", ...)
end

--- Runs an example to its end; returns what process.run does: output, errors, exit code.
function examples.run(...)
  return process.run(examples.words(...))
end

--- Starts a server of the examples; returns it, its port on v4 and its port on v6, each nil where it does not
--- listen there.
function examples.start_server(...)
  local server = process.start(examples.words(...))
  server:wait_for("listening on")
  local ports = {}
  for text in server:output():gmatch("listening on (%S+)") do
    local address, port = ip.toendpoint(text)
    ports[address.is_v6 and "v6" or "v4"] = port
  end
  return server, ports.v4, ports.v6
end

--- Runs a command while serve(sock) answers it in a fiber of this process; returns what process.run does.
--- `words_for` makes the words of the command from the port of `sock`.
function examples.run_against(serve, words_for)
  local sock <close>, port = support.bound()
  local server = ip.fiber.spawn(serve, sock)
  local output, errors, code = process.run(words_for(port))
  server:interrupt()
  server:join()
  return output, errors, code
end

--- May this process make networks and run examples in them?
function examples.can_use_networks()
  return platform.is_linux and process.exists("ip") and network.is_permitted()
end

--- The words of a command that runs an example in the namespace `name` of a network.
function examples.words_in(net, name, ...)
  local words = { "sh", "-c", "exec " .. net.machines[name]:program('"$@"'), "sh" }
  for _, word in ipairs(examples.words(...)) do words[#words + 1] = word end
  return words
end

--- Runs an example there to its end; returns what process.run does.
function examples.run_in(...)
  return process.run(examples.words_in(...))
end

--- Fails unless an example answers --help with its usage, in which these options are.
function examples.assert_help(name, options)
  local output, errors, code = examples.run(name, "--help")
  assert.equal(0, code)
  assert.equal("", errors)
  assert.matches("^usage: " .. name .. "%.lua .*" .. (options or "") .. "%-%-help", output)
end

--- Fails unless an example refuses these arguments, with its usage and a message that matches.
function examples.assert_refused(name, message, ...)
  local output, errors, code = examples.run(name, ...)
  assert.equal(2, code)
  assert.equal("", output)
  assert.matches("^" .. name .. "%.lua: .*" .. message, errors)
  assert.matches("usage: " .. name .. "%.lua", errors)
end

return examples
