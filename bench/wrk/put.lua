-- PUT /vehicles/{id}, a new vehicle each time.
-- Arguments: the key, a number that the run's ids begin with.
require "common"

local n, prefix = 0, ""

function init(args)
  wrk.headers["x-api-key"] = args[1]
  prefix = "/vehicles/W" .. args[2] .. "-"
end

function request()
  n = n + 1
  return wrk.format("PUT", string.format("%s%07d", prefix, n), nil,
    '{"chargeCapacity":74.8,"chargePowers":[11,22]}')
end
