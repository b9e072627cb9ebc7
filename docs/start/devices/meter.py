import json, os, random, signal, sys, threading
import paho.mqtt.client as mqtt

DEVICE = os.environ["DEVICE"]                       # meters/meter-7
FLEET, NAME = DEVICE.split("/")
DESIRED = f".tidegate/desired/{DEVICE}"             # what the fleet wants its devices to be like
FOR_GOOD = ("Bad user name or password", "Not authorized")  # nothing but a person changes these answers

done, wake = threading.Event(), threading.Event()
interval = 10.0


def end(*_):
    done.set()
    wake.set()


def on_connect(client, userdata, flags, reason, properties):
    if reason.is_failure:
        print("turned away:", reason, flush=True)
        if str(reason) in FOR_GOOD:
            end()
        return
    print("connected", flush=True)
    client.subscribe([(DESIRED, 1), (f"commands/{FLEET}/{NAME}/#", 1)])


def on_disconnect(client, userdata, flags, reason, properties):
    print("disconnected:", reason, flush=True)      # paho comes back by itself


def on_publish(client, userdata, mid, reason, properties):
    if reason.is_failure:                           # for good: the same message is refused again
        print("refused:", reason, flush=True)
    else:
        print("stored", flush=True)


def on_message(client, userdata, message):
    global interval
    if message.topic == DESIRED:                    # comes at once, and again when it changes; empty: there is none
        interval = float(json.loads(message.payload or b"{}").get("intervalSeconds", 10))
        print("interval:", interval, flush=True)
        wake.set()
    else:
        print("command:", message.topic, message.payload.decode(errors="replace"), flush=True)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=NAME, protocol=mqtt.MQTTv5)
client.on_connect, client.on_disconnect = on_connect, on_disconnect
client.on_publish, client.on_message = on_publish, on_message
client.username_pw_set(DEVICE, os.environ["PASSWORD"])
if "CA" in os.environ:                              # who signed for the gateway: TLS
    client.tls_set(ca_certs=os.environ["CA"])
client.reconnect_delay_set(min_delay=1, max_delay=30)
signal.signal(signal.SIGTERM, end)

client.connect_async(sys.argv[1], int(os.environ.get("PORT", "1883")), keepalive=30)
client.loop_start()
while not done.is_set():
    # queued while there is no connection, and sent again until there is an answer
    client.publish(f"sites/berlin/telemetry/{NAME}/power", str(1300 + random.randrange(100)), qos=1)
    wake.wait(interval)
    wake.clear()
client.disconnect()
client.loop_stop()
