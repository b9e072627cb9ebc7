import os, random, signal, sys, threading, time
import paho.mqtt.client as mqtt

DEVICE = os.environ["DEVICE"]                       # meters/meter-7
FLEET, NAME = DEVICE.split("/")
FOR_GOOD = ("Bad user name or password", "Not authorized")  # nothing but a person changes these answers

done = threading.Event()


def on_connect(client, userdata, flags, reason, properties):
    if reason.is_failure:
        print("turned away:", reason, flush=True)
        if str(reason) in FOR_GOOD:
            done.set()
        return
    print("connected", flush=True)
    client.subscribe(f"commands/{FLEET}/{NAME}/#", qos=1)


def on_disconnect(client, userdata, flags, reason, properties):
    print("disconnected:", reason, flush=True)      # paho comes back by itself


def on_publish(client, userdata, mid, reason, properties):
    if reason.is_failure:                           # for good: the same message is refused again
        print("refused:", reason, flush=True)
    else:
        print("stored", flush=True)


def on_message(client, userdata, message):
    print("command:", message.topic, message.payload.decode(errors="replace"), flush=True)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=NAME, protocol=mqtt.MQTTv5)
client.on_connect, client.on_disconnect = on_connect, on_disconnect
client.on_publish, client.on_message = on_publish, on_message
client.username_pw_set(DEVICE, os.environ["PASSWORD"])
client.reconnect_delay_set(min_delay=1, max_delay=30)
signal.signal(signal.SIGTERM, lambda *_: done.set())

client.connect_async(sys.argv[1], int(os.environ.get("PORT", "1883")), keepalive=30)
client.loop_start()
while not done.is_set():
    # queued while there is no connection, and sent again until there is an answer
    client.publish(f"sites/berlin/telemetry/{NAME}/power", str(1300 + random.randrange(100)), qos=1)
    done.wait(1 + random.random())
client.disconnect()
client.loop_stop()
